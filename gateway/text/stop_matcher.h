// Finds the earliest stop string in a stream of text, across any borders. Thread-compatible; one
// per sequence, sharing one immutable StopSet per request.
//
// Earliest position wins: the match that begins first, whatever the cuts; of those that begin
// together the shortest. Held back is only an end of the text that could still become a stop.
// Aho-Corasick: amortised O(1) steps per byte whatever the stops. Source: Aho, Corasick, "Efficient
// string matching", CACM 18(6), 1975.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace behemoth::gateway {

class StopSet {
 public:
  // `stops`: non-empty strings; order = what match() returns.
  explicit StopSet(std::span<const std::string> stops);

  bool empty() const { return stops_.empty(); }
  const std::string& text(size_t stop) const { return stops_[stop]; }

 private:
  friend class StopMatcher;
  friend class BannedText;
  struct Node {
    std::vector<std::pair<uint8_t, uint32_t>> next;  // sorted by byte
    uint32_t fail = 0;
    uint32_t depth = 0;
    int32_t stop = -1;  // longest stop that ends here, through fail links too
  };
  uint32_t Step(uint32_t node, uint8_t byte) const;

  std::vector<std::string> stops_;
  std::vector<Node> nodes_;  // [0] is the root
};

class StopMatcher {
 public:
  explicit StopMatcher(std::shared_ptr<const StopSet> stops);

  // Appends to `out` all text that is certainly before any stop. True: a stop is found, see
  // match(); the text before it is all in `out`, what follows is dropped, now and later.
  bool Push(std::string_view text, std::string& out);
  // The text ends here. True as above: a stop that an earlier, longer one was still hoped for; else
  // what was held back is text.
  bool Flush(std::string& out);

  // Index of the stop found, in the order given to StopSet.
  std::optional<size_t> match() const { return done_ ? match_ : std::nullopt; }
  size_t held_bytes() const { return held_.size(); }

 private:
  bool Finish(std::string& out);

  std::shared_ptr<const StopSet> stops_;
  uint32_t node_ = 0;
  bool done_ = false;
  std::string held_;             // the string of node_, or longer while a match waits
  std::optional<size_t> match_;  // the best so far
  size_t match_begin_ = 0;       // in held_
};

}  // namespace behemoth::gateway
