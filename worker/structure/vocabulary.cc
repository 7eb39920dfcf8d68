#include "worker/structure/vocabulary.h"

#include <absl/strings/str_cat.h>

#include <utility>

namespace behemoth::worker {
namespace {

std::vector<std::string> WithEnd(std::vector<std::string> tokens) {
  tokens.emplace_back();
  return tokens;
}

std::vector<std::string> WithoutControls(std::vector<std::string> tokens,
                                         const std::vector<uint32_t>& control_ids) {
  for (const uint32_t id : control_ids) tokens[id].clear();
  return tokens;
}

bool AreKnown(const std::vector<uint32_t>& ids, size_t size) {
  for (const uint32_t id : ids) {
    if (id >= size) return false;
  }
  return true;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Vocabulary>> Vocabulary::Make(
    std::vector<std::string> tokens, const std::vector<uint32_t>& control_ids,
    int32_t vocabulary_size) {
  if (tokens.size() > static_cast<size_t>(vocabulary_size)) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokens: ", tokens.size(), ", the model has ", vocabulary_size));
  }
  tokens.resize(static_cast<size_t>(vocabulary_size));
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (tokens[id].size() > kMaxTokenBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("tokens: id ", id, " has more than ", kMaxTokenBytes, " bytes"));
    }
  }
  if (!AreKnown(control_ids, tokens.size())) {
    return absl::InvalidArgumentError("control_ids: not in the vocabulary");
  }
  return std::shared_ptr<const Vocabulary>(
      new Vocabulary(WithoutControls(std::move(tokens), control_ids)));
}

Vocabulary::Vocabulary(std::vector<std::string> tokens)
    : tokens_(std::move(tokens)),
      tokenizer_(WithEnd(tokens_), xgrammar::VocabType::RAW, std::nullopt,
                 std::vector<int32_t>{size()}) {
  for (Utf8State state = 0; state < kUtf8States; ++state) {
    utf8_masks_[state].assign(mask_words(), 0);
    for (size_t id = 0; id < tokens_.size(); ++id) {
      if (WalkUtf8(state, tokens_[id]) == kUtf8Broken) continue;
      utf8_masks_[state][id / 32] |= uint32_t{1} << (id % 32);
    }
  }
  no_space_mask_.assign(mask_words(), 0);
  for (size_t id = 0; id < tokens_.size(); ++id) {
    if (!tokens_[id].empty() && IsJsonSpace(tokens_[id][0])) continue;
    no_space_mask_[id / 32] |= uint32_t{1} << (id % 32);
  }
}

bool Vocabulary::Equals(const std::vector<std::string>& tokens,
                        const std::vector<uint32_t>& control_ids) const {
  if (tokens.size() > tokens_.size() || !AreKnown(control_ids, tokens.size())) return false;
  std::vector<std::string> padded = WithoutControls(tokens, control_ids);
  padded.resize(tokens_.size());
  return padded == tokens_;
}

}  // namespace behemoth::worker
