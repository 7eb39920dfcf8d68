#include "tokenizer_svc/vocabulary.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <memory>
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

// Fields go in with their length in front, so that no two specs give the same stream.
class Digest {
 public:
  Digest() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr);
  }
  void Number(uint64_t value) {
    std::array<unsigned char, 8> bytes;
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<unsigned char>(value >> 8 * i);
    EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size());
  }
  void Text(const std::string& text) {
    Number(text.size());
    EVP_DigestUpdate(context_.get(), text.data(), text.size());
  }
  void Ids(const std::vector<uint32_t>& ids) {
    Number(ids.size());
    for (const uint32_t id : ids) Number(id);
  }
  std::string Hex() {
    std::array<unsigned char, 32> sum;
    EVP_DigestFinal_ex(context_.get(), sum.data(), nullptr);
    std::string hex;
    for (const unsigned char byte : sum) {
      hex += "0123456789abcdef"[byte >> 4];
      hex += "0123456789abcdef"[byte & 15];
    }
    return hex;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context_;
};

std::string FingerprintOf(const TokenizerSpec& spec) {
  Digest digest;
  digest.Number(spec.tokens.size());
  for (const std::string& token : spec.tokens) digest.Text(token);
  digest.Number(spec.merges.size());
  for (const Merge& merge : spec.merges) {
    for (const uint32_t id : {merge.left, merge.right, merge.joined}) digest.Number(id);
  }
  digest.Number(spec.added.size());
  for (const AddedToken& token : spec.added) {
    digest.Number(token.id);
    digest.Text(token.content);
    digest.Number(token.special | token.normalized << 1 | token.strip_left << 2 |
                  token.strip_right << 3);
  }
  digest.Number(spec.unk_id ? *spec.unk_id + uint64_t{1} : 0);
  digest.Number(static_cast<uint64_t>(spec.prefix));
  digest.Number(spec.spaces_to_marks | spec.split_at_marks << 1 | spec.byte_fallback << 2 |
                spec.fuse_unk << 3 | spec.ignore_merges << 4);
  digest.Ids(spec.prefix_ids);
  digest.Ids(spec.suffix_ids);
  return digest.Hex();
}

}  // namespace

Vocabulary::Vocabulary(const TokenizerSpec& spec, PromptTexts texts)
    : encoder_(spec),
      fingerprint_(FingerprintOf(spec)),
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
