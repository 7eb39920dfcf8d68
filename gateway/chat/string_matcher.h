// Which of a fixed set of strings begins here: a trie over code points. Immutable, thread-safe.
// Linear on hostile input: one lookup walks at most as far as the longest string.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace behemoth::gateway {

class StringMatcher {
 public:
  struct Match {
    size_t length = 0;  // in code points; 0 = none
    uint32_t value = 0;
  };

  // The value of a string added twice is the later one's. Empty strings are ignored.
  void Add(std::u32string_view string, uint32_t value);

  // The longest string of the set that begins at text[at].
  Match Longest(std::u32string_view text, size_t at) const;

  // True if any string of the set occurs in `text`.
  bool OccursIn(std::u32string_view text) const;

 private:
  struct Node {
    std::vector<std::pair<char32_t, uint32_t>> next;  // few: digits at the widest
    uint32_t value = 0;
    bool ends = false;
  };

  std::vector<Node> nodes_ = std::vector<Node>(1);
};

}  // namespace behemoth::gateway
