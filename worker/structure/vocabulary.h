// The bytes of every token, as xgrammar wants them. Immutable, shared, thread-safe.
#pragma once

#include <absl/status/statusor.h>
#include <xgrammar/tokenizer_info.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "worker/ids.h"
#include "worker/structure/utf8_walk.h"

namespace behemoth::worker {

class Vocabulary {
 public:
  // `tokens` of every id; those of `control_ids` become empty: they are part of no text.
  // A model may have more ids than its tokenizer: their texts are empty.
  // INVALID_ARGUMENT: more than `vocabulary_size` tokens, more than kMaxTokenBytes in one, unknown
  // ids.
  static constexpr size_t kMaxTokenBytes = 1024;
  static absl::StatusOr<std::shared_ptr<const Vocabulary>> Make(
      std::vector<std::string> tokens, const std::vector<uint32_t>& control_ids,
      int32_t vocabulary_size);

  int32_t size() const { return static_cast<int32_t>(tokens_.size()); }
  // In words of 32 ids.
  size_t mask_words() const { return (tokens_.size() + 31) / 32; }
  const std::string& text(TokenId id) const { return tokens_[static_cast<size_t>(id)]; }
  // The tokens that go on as UTF-8 from that state; mask_words() words.
  const std::vector<uint32_t>& utf8_mask(Utf8State state) const { return utf8_masks_[state]; }
  // The tokens that do not begin with JSON's white space; mask_words() words.
  const std::vector<uint32_t>& no_space_mask() const { return no_space_mask_; }
  bool Equals(const std::vector<std::string>& tokens,
              const std::vector<uint32_t>& control_ids) const;
  // Has one id more than we have: size() stands for "the text may end here", whatever the request's
  // own stop ids are.
  const xgrammar::TokenizerInfo& tokenizer() const { return tokenizer_; }

 private:
  explicit Vocabulary(std::vector<std::string> tokens);

  const std::vector<std::string> tokens_;
  const xgrammar::TokenizerInfo tokenizer_;
  std::vector<uint32_t> utf8_masks_[kUtf8States], no_space_mask_;
};

}  // namespace behemoth::worker
