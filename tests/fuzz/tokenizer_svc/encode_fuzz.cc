// Any text with the tiny model: ids lie in the vocabulary, user text yields no control token, and
// the ids' bytes are the text again.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "tokenizer_svc/utf8.h"
#include "tokenizer_svc/vocabulary_loader.h"

namespace {

using namespace behemoth::tokenizer;

const Vocabulary& Tiny() {
  static const auto loaded = LoadVocabulary(BEHEMOTH_SOURCE_DIR "/tests/models/tiny");
  if (!loaded.ok()) __builtin_trap();
  return **loaded;
}

std::string WithSpaces(std::string text) {
  for (size_t at; (at = text.find(kSpaceMark)) != text.npos;) text.replace(at, 3, " ");
  return text;
}

void Check(std::string_view text, Segment::Kind kind) {
  const Segment halves[] = {{.kind = kind, .text = text.substr(0, text.size() / 2)},
                            {.kind = kind, .text = text.substr(text.size() / 2)}};
  std::string bytes;
  for (const uint32_t id : Tiny().encoder().Encode(halves, false)) {
    if (id >= Tiny().size()) __builtin_trap();
    if (kind == Segment::Kind::kText && Tiny().IsControl(id)) __builtin_trap();
    bytes += Tiny().token_bytes()[id];
  }
  const std::string expected = WithSpaces(std::string(text));
  if (IsUtf8(text) && bytes != expected && bytes != " " + expected) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  Check(text, Segment::Kind::kText);
  Check(text, Segment::Kind::kMarked);
  return 0;
}
