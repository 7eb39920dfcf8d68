#include "gateway/chat/string_matcher.h"

#include <algorithm>

namespace behemoth::gateway {
namespace {

template <typename Next>
auto Step(const Next& next, char32_t c) {
  return std::find_if(next.begin(), next.end(), [c](const auto& edge) { return edge.first == c; });
}

}  // namespace

void StringMatcher::Add(std::u32string_view string, uint32_t value) {
  if (string.empty()) return;
  uint32_t node = 0;
  for (const char32_t c : string) {
    const auto edge = Step(nodes_[node].next, c);
    if (edge != nodes_[node].next.end()) {
      node = edge->second;
      continue;
    }
    const auto fresh = static_cast<uint32_t>(nodes_.size());
    nodes_[node].next.emplace_back(c, fresh);
    nodes_.emplace_back();
    node = fresh;
  }
  nodes_[node].ends = true;
  nodes_[node].value = value;
}

StringMatcher::Match StringMatcher::Longest(std::u32string_view text, size_t at) const {
  Match best;
  uint32_t node = 0;
  for (size_t i = at; i < text.size(); ++i) {
    const auto edge = Step(nodes_[node].next, text[i]);
    if (edge == nodes_[node].next.end()) break;
    node = edge->second;
    if (nodes_[node].ends) best = {.length = i - at + 1, .value = nodes_[node].value};
  }
  return best;
}

bool StringMatcher::OccursIn(std::u32string_view text) const {
  for (size_t i = 0; i < text.size(); ++i) {
    if (Longest(text, i).length > 0) return true;
  }
  return false;
}

}  // namespace behemoth::gateway
