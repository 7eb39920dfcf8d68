// Watches a sequence's tokens for texts that must not be shown: holds a token back while it may be
// part of one, and names the token in which one began. Thread-compatible; one per sequence, sharing
// one immutable BannedSet per request. Case is ignored (case_fold.h).
//
// Life of a token: Push -> held -> Pop, once front_is_sure(). Rewind goes back to any token that is
// still held; what was before it stays as it was. What stands in the prompt is not looked at.
// Amortised O(1) per byte, as StopMatcher.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "gateway/text/detokenizer.h"
#include "gateway/text/stop_matcher.h"

namespace behemoth::gateway {

class BannedSet {
 public:
  // Non-empty, valid UTF-8.
  explicit BannedSet(std::vector<std::string> texts);
  const std::string& text(size_t index) const { return texts_[index]; }

 private:
  friend class BannedText;
  std::vector<std::string> texts_;
  StopSet folded_;
};

class BannedText {
 public:
  BannedText(std::shared_ptr<const BannedSet> set, std::shared_ptr<const TokenTable> table,
             const DetokenizerOptions& options);

  struct Match {
    size_t token = 0;  // the one in which the text began, counted from the sequence's first
    size_t text = 0;   // which one
  };
  // After a match nothing is pushed before a Rewind.
  std::optional<Match> Push(uint32_t id);

  // The oldest token held is part of no banned text, whatever comes.
  bool front_is_sure() const;
  void Pop();
  // Drops the tokens from `token` on, counted as in Match; it is held, or the next one.
  void Rewind(size_t token);

  size_t popped() const { return popped_; }
  size_t held() const { return tokens_.size(); }

 private:
  struct Token {
    Detokenizer before;
    uint32_t node_before;
    size_t begin;        // of the folded text, when it came
    size_t own_end;      // what it completed
    size_t end;          // the same, or the end of the character that it left half there
    bool mid_character;  // it came while one was half there
    bool leaves_half;    // it left one half there
    bool open;           // which is still so
  };
  size_t TokenAt(size_t byte) const;
  void CloseHalves(size_t end);

  std::shared_ptr<const BannedSet> set_;
  Detokenizer detokenizer_;
  uint32_t node_ = 0;
  size_t length_ = 0;  // bytes of folded text so far
  size_t popped_ = 0;
  std::deque<Token> tokens_;
  std::string text_, folded_;  // reused
};

}  // namespace behemoth::gateway
