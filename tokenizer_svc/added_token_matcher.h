// Cuts added tokens out of text: leftmost, and there the longest, as Hugging Face does.
//
// Immutable after construction, thread-safe. Time: text bytes x the longest token, which the file
// bounds and the text does not.
#pragma once

#include <absl/container/flat_hash_map.h>

#include <array>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "tokenizer_svc/tokenizer_spec.h"

namespace behemoth::tokenizer {

// A half-open range of bytes.
struct Span {
  size_t begin = 0;
  size_t end = 0;
};

class AddedTokenMatcher {
 public:
  // Keeps the tokens of one pass.
  AddedTokenMatcher(const std::vector<AddedToken>& tokens, bool normalized);
  AddedTokenMatcher(const AddedTokenMatcher&) = delete;  // nodes point into tokens_
  AddedTokenMatcher& operator=(const AddedTokenMatcher&) = delete;

  // One piece of the text, in order: a token, or ordinary text where `id` is nullopt.
  using Sink = std::function<void(std::optional<uint32_t> id, Span span)>;

  // `trusted`: sorted, disjoint ranges in which control tokens count; outside of them, or across
  // their borders, a control token's string is ordinary text.
  void Split(std::string_view text, Span within, const std::vector<Span>& trusted,
             const Sink& sink) const;

 private:
  struct Node {
    absl::flat_hash_map<char, uint32_t> next;
    const AddedToken* token = nullptr;
  };

  const AddedToken* LongestAt(std::string_view text, size_t at, size_t end,
                              size_t trusted_end) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_;
  std::array<bool, 256> starts_{};  // bytes that begin a token: all that most text ever asks
};

}  // namespace behemoth::tokenizer
