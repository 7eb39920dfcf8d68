#include "worker/structure/expansion.h"

#include <algorithm>
#include <cctype>
#include <vector>

namespace behemoth::worker {
namespace {

constexpr uint64_t kMost = uint64_t{1} << 31;  // its square fits

// The index behind a class or a literal that begins at `at` and ends with `end`.
size_t Behind(std::string_view text, size_t at, char end) {
  for (++at; at < text.size() && text[at] != end; ++at) {
    if (text[at] == '\\') ++at;
  }
  return std::min(at + 1, text.size());
}

// The largest number in "{m,n}" at `at`, which moves behind it; 1 if there are no braces of
// numbers.
uint64_t Count(std::string_view text, size_t* at) {
  uint64_t number = 0, largest = 0;
  size_t i = *at + 1;
  for (; i < text.size() && text[i] != '}'; ++i) {
    if (text[i] == ',') {
      number = 0;
    } else if (std::isdigit(static_cast<unsigned char>(text[i]))) {
      number = std::min(number * 10 + static_cast<uint64_t>(text[i] - '0'), kMost);
      largest = std::max(largest, number);
    } else if (text[i] != ' ') {
      return 1;
    }
  }
  *at = i;
  return std::max<uint64_t>(largest, 1);
}

}  // namespace

Expansion Expand(std::string_view text, PatternSyntax syntax) {
  // Of each open group: what it holds so far, and its last piece.
  struct Group {
    uint64_t total = 0, last = 0;
  };
  std::vector<Group> open(1);
  Expansion out;
  const auto add = [&](uint64_t atoms) {
    open.back().total = std::min(open.back().total + atoms, kMost);
    open.back().last = atoms;
  };
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '[') {
      i = Behind(text, i, ']') - 1;
      add(1);
    } else if (c == '"' && syntax == PatternSyntax::kGrammar) {
      const size_t end = Behind(text, i, '"');
      add(end - i);
      i = end - 1;
    } else if (c == '(') {
      open.push_back({});
      ++out.operators;
      out.depth = std::max(out.depth, static_cast<int>(open.size()) - 1);
    } else if (c == ')' && open.size() > 1) {
      const uint64_t atoms = open.back().total;
      open.pop_back();
      add(atoms);
    } else if (c == '{') {
      const uint64_t more = open.back().last * (Count(text, &i) - 1);
      open.back().total = std::min(open.back().total + more, kMost);
      open.back().last = std::min(open.back().last + more, kMost);
      ++out.operators;
    } else {
      if (c == '*' || c == '+' || c == '?' || c == '=') ++out.operators;
      if (c == '\\') ++i;
      add(1);
    }
  }
  for (const Group& group : open) out.atoms += group.total;
  out.atoms = std::min(out.atoms, kMost);
  return out;
}

}  // namespace behemoth::worker
