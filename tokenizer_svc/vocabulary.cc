#include "tokenizer_svc/vocabulary.h"

#include <algorithm>
#include <utility>

namespace behemoth::tokenizer {
namespace {

std::string BytesOf(const TokenizerSpec& spec, const std::string& token) {
  if (spec.byte_fallback) {
    if (const auto byte = ByteOfToken(token)) return std::string(1, static_cast<char>(*byte));
  }
  if (!spec.spaces_to_marks) return token;
  std::string bytes;
  for (size_t at = 0; at < token.size();) {
    const bool mark = std::string_view(token).substr(at).starts_with(kSpaceMark);
    bytes += mark ? ' ' : token[at];
    at += mark ? kSpaceMark.size() : 1;
  }
  return bytes;
}

}  // namespace

Vocabulary::Vocabulary(const TokenizerSpec& spec, PromptTexts texts)
    : encoder_(spec),
      fingerprint_(spec.fingerprint),
      special_(spec.special),
      texts_(std::move(texts)) {
  token_bytes_.reserve(spec.tokens.size());
  for (const std::string& token : spec.tokens) token_bytes_.push_back(BytesOf(spec, token));
  for (const AddedToken& token : spec.added) {
    token_bytes_[token.id] = token.content;
    if (token.special) control_ids_.push_back(token.id);
  }
  std::sort(control_ids_.begin(), control_ids_.end());
  control_ids_.erase(std::unique(control_ids_.begin(), control_ids_.end()), control_ids_.end());
}

bool Vocabulary::IsControl(uint32_t id) const {
  return std::binary_search(control_ids_.begin(), control_ids_.end(), id);
}

}  // namespace behemoth::tokenizer
