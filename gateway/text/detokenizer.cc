#include "gateway/text/detokenizer.h"

#include <utility>

namespace behemoth::gateway {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// Length of the character that `lead` begins; 0 = no character begins so (RFC 3629).
size_t CharacterBytes(uint8_t lead) {
  if (lead < 0x80) return 1;
  if (lead < 0xC2) return 0;
  if (lead < 0xE0) return 2;
  if (lead < 0xF0) return 3;
  return lead < 0xF5 ? 4 : 0;
}

// Whether `byte` may be byte number `index` >= 1 of a character begun by `lead`. The second byte's
// range is what excludes overlong forms, surrogates and values over U+10FFFF.
bool Continues(uint8_t lead, size_t index, uint8_t byte) {
  if (index > 1) return (byte & 0xC0) == 0x80;
  switch (lead) {
    case 0xE0:
      return byte >= 0xA0 && byte <= 0xBF;
    case 0xED:
      return byte >= 0x80 && byte <= 0x9F;
    case 0xF0:
      return byte >= 0x90 && byte <= 0xBF;
    case 0xF4:
      return byte >= 0x80 && byte <= 0x8F;
    default:
      return (byte & 0xC0) == 0x80;
  }
}

}  // namespace

void Utf8Assembler::Push(std::string_view bytes, std::string& out) {
  for (size_t i = 0; i < bytes.size(); ++i) {
    const auto byte = static_cast<uint8_t>(bytes[i]);
    if (!pending_.empty()) {
      const auto lead = static_cast<uint8_t>(pending_[0]);
      if (Continues(lead, pending_.size(), byte)) {
        pending_.push_back(bytes[i]);
        if (pending_.size() == CharacterBytes(lead)) {
          out += pending_;
          pending_.clear();
        }
        continue;
      }
      Flush(out);
    }
    if (byte < 0x80) {
      out.push_back(bytes[i]);
    } else if (CharacterBytes(byte) == 0) {
      out += kReplacement;
    } else {
      pending_.push_back(bytes[i]);
    }
  }
}

void Utf8Assembler::Flush(std::string& out) {
  for (size_t i = 0; i < pending_.size(); ++i) out += kReplacement;
  pending_.clear();
}

Detokenizer::Detokenizer(std::shared_ptr<const TokenTable> table, const DetokenizerOptions& options)
    : table_(std::move(table)), options_(options) {}

void Detokenizer::Push(uint32_t id, std::string& out) {
  if (!table_->contains(id)) {
    assembler_.Flush(out);
    out += kReplacement;
    return;
  }
  if (options_.skip_special_tokens && table_->is_control(id)) return;
  std::string_view bytes = table_->bytes(id);
  if (options_.strip_leading_space && !bytes.empty()) {
    if (bytes.front() == ' ') bytes.remove_prefix(1);
    options_.strip_leading_space = false;
  }
  assembler_.Push(bytes, out);
}

void Detokenizer::Flush(std::string& out) { assembler_.Flush(out); }

}  // namespace behemoth::gateway
