// Any bytes as a tokenizer file: read and used, or refused; never a crash.
#include <absl/status/statusor.h>

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tokenizer_svc/sentencepiece_model.h"
#include "tokenizer_svc/tokenizer_json.h"
#include "tokenizer_svc/vocabulary.h"

namespace {

using namespace behemoth::tokenizer;

void Use(const absl::StatusOr<TokenizerSpec>& spec) {
  if (!spec.ok()) return;
  const Vocabulary vocabulary(*spec, {});
  const Segment segment{.kind = Segment::Kind::kMarked, .text = "a b[X]é\xFF  <s>ab"};
  for (const uint32_t id : vocabulary.encoder().Encode({&segment, 1}, true)) {
    if (id >= vocabulary.size()) __builtin_trap();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  Use(ParseTokenizerJson(bytes));
  Use(ParseSentencePieceModel(bytes));
  return 0;
}
