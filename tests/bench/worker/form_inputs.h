// What the serving bench feeds to structured output: a vocabulary, and schemas that are new.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace behemoth::bench {

struct TokenTexts {
  std::vector<std::string> tokens;  // by id
  std::vector<uint32_t> control_ids;
};

// Of a SentencePiece tokenizer.model: what the tokenizer service makes of it.
absl::StatusOr<TokenTexts> ReadTokenizerModel(const std::string& path);
// Made up: each byte, then pieces of one to eight letters, digits and signs.
TokenTexts SomeTokenTexts(int32_t size);

// From middling to hard; of the kinds of tests/conformance/structure, at the size of what agents
// send.
enum class SchemaKind {
  kTree,    // refers to itself
  kTagged,  // a list of objects of two kinds, told apart by a field
  kRecord,  // strings by pattern, format and length, ranges, an enum, nested
  kWide,    // 300 required properties
  kUnion,   // 200 kinds of objects
};
struct NamedSchema {
  const char* name;
  SchemaKind kind;
};
inline constexpr NamedSchema kSchemas[] = {{"tree", SchemaKind::kTree},
                                           {"tagged", SchemaKind::kTagged},
                                           {"record", SchemaKind::kRecord},
                                           {"wide", SchemaKind::kWide},
                                           {"union", SchemaKind::kUnion}};
// Another one for each `number`, equally hard.
std::string NewSchema(SchemaKind kind, int32_t number);

}  // namespace behemoth::bench
