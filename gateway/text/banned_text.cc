#include "gateway/text/banned_text.h"

#include <utility>

#include "gateway/text/case_fold.h"
#include "proto/support/check.h"

namespace behemoth::gateway {
namespace {

std::vector<std::string> Folded(const std::vector<std::string>& texts) {
  std::vector<std::string> folded(texts.size());
  for (size_t i = 0; i < texts.size(); ++i) AppendFolded(texts[i], folded[i]);
  return folded;
}

size_t FirstCharacterBytes(std::string_view text) {
  size_t bytes = 1;
  while (bytes < text.size() && (static_cast<uint8_t>(text[bytes]) & 0xC0) == 0x80) ++bytes;
  return bytes;
}

}  // namespace

BannedSet::BannedSet(std::vector<std::string> texts)
    : texts_(std::move(texts)), folded_(Folded(texts_)) {}

BannedText::BannedText(std::shared_ptr<const BannedSet> set,
                       std::shared_ptr<const TokenTable> table, const DetokenizerOptions& options)
    : set_(std::move(set)), detokenizer_(std::move(table), options) {}

std::optional<BannedText::Match> BannedText::Push(uint32_t id) {
  Token token{.before = detokenizer_,
              .node_before = node_,
              .begin = length_,
              .mid_character = detokenizer_.mid_character()};
  text_.clear();
  folded_.clear();
  detokenizer_.Push(id, text_);
  AppendFolded(text_, folded_);
  token.leaves_half = token.open = detokenizer_.mid_character();
  token.own_end = token.end = length_ + folded_.size();
  if (token.mid_character && !folded_.empty()) {
    CloseHalves(length_ + FirstCharacterBytes(folded_));
  }
  tokens_.push_back(std::move(token));
  for (const char c : folded_) {
    node_ = set_->folded_.Step(node_, static_cast<uint8_t>(c));
    ++length_;
    const int32_t found = set_->folded_.nodes_[node_].stop;
    if (found < 0) continue;
    const auto index = static_cast<size_t>(found);
    return Match{.token = TokenAt(length_ - set_->folded_.text(index).size()), .text = index};
  }
  return std::nullopt;
}

bool BannedText::front_is_sure() const {
  if (tokens_.empty() || tokens_.front().open) return false;
  return tokens_.front().end <= length_ - set_->folded_.nodes_[node_].depth;
}

void BannedText::Pop() {
  tokens_.pop_front();
  ++popped_;
}

void BannedText::Rewind(size_t token) {
  BEHEMOTH_CHECK(token >= popped_ && token <= popped_ + tokens_.size(), "a token that is not held");
  const size_t index = token - popped_;
  if (index == tokens_.size()) return;
  detokenizer_ = tokens_[index].before;
  node_ = tokens_[index].node_before;
  length_ = tokens_[index].begin;
  const bool half = tokens_[index].mid_character;
  tokens_.resize(index, tokens_[index]);
  // The character that the dropped ones had completed is half there again.
  for (size_t i = tokens_.size(); half && i > 0; --i) {
    Token& last = tokens_[i - 1];
    last.open = true;
    last.end = last.own_end;
    if (!last.mid_character || last.own_end > last.begin) break;
  }
}

// The last token that begins at or before the byte; where that byte's character began in an earlier
// one, that one.
size_t BannedText::TokenAt(size_t byte) const {
  size_t at = tokens_.size() - 1;
  while (at > 0 && tokens_[at].begin > byte) --at;
  while (at > 0 && tokens_[at].mid_character && tokens_[at].begin == byte) --at;
  return popped_ + at;
}

void BannedText::CloseHalves(size_t end) {
  for (auto token = tokens_.rbegin(); token != tokens_.rend() && token->open; ++token) {
    token->open = false;
    token->end = end;
  }
}

}  // namespace behemoth::gateway
