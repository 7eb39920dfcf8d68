#include "tests/bench/worker/form_inputs.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>
#include <google/protobuf/io/coded_stream.h>

#include <fstream>
#include <iterator>

namespace behemoth::bench {
namespace {

using google::protobuf::io::CodedInputStream;

// Of sentencepiece_model.proto.
constexpr uint32_t kModelPiece = 1 << 3 | 2, kPieceText = 1 << 3 | 2, kPieceType = 3 << 3 | 0;
enum PieceType : uint32_t { kNormal = 1, kUnknown = 2, kControl = 3, kByte = 6 };

bool Skip(uint32_t tag, CodedInputStream& in) {
  uint64_t value = 0;
  switch (tag & 7) {
    case 0:
      return in.ReadVarint64(&value);
    case 1:
      return in.Skip(8);
    case 2:
      return in.ReadVarint64(&value) && in.Skip(static_cast<int>(value));
    case 5:
      return in.Skip(4);
    default:
      return false;
  }
}

// A message's fields: `read` takes those that it knows and returns false for the others.
template <typename Read>
bool ReadFields(const std::string& bytes, Read read) {
  CodedInputStream in(reinterpret_cast<const uint8_t*>(bytes.data()),
                      static_cast<int>(bytes.size()));
  while (const uint32_t tag = in.ReadTag()) {
    if (!read(tag, in) && !Skip(tag, in)) return false;
  }
  return in.ConsumedEntireMessage();
}

bool ReadText(CodedInputStream& in, std::string* text) {
  uint32_t length = 0;
  return in.ReadVarint32(&length) && in.ReadString(text, static_cast<int>(length));
}

bool AddPiece(const std::string& bytes, TokenTexts* texts) {
  std::string piece;
  uint32_t type = kNormal;
  const bool read = ReadFields(bytes, [&](uint32_t tag, CodedInputStream& in) {
    if (tag == kPieceText) return ReadText(in, &piece);
    return tag == kPieceType && in.ReadVarint32(&type);
  });
  if (type == kControl || type == kUnknown) {
    texts->control_ids.push_back(static_cast<uint32_t>(texts->tokens.size()));
  }
  uint32_t byte = 0;
  if (type == kByte && piece.size() == 6 && absl::SimpleHexAtoi(piece.substr(3, 2), &byte)) {
    piece.assign(1, static_cast<char>(byte));
  }
  texts->tokens.push_back(absl::StrReplaceAll(piece, {{"\u2581", " "}}));
  return read;
}

std::string Wide(const std::string& own) {
  std::string properties, names;
  for (int i = 0; i < 300; ++i) {
    const char* comma = i == 0 ? "" : ",";
    absl::StrAppend(&properties, comma, "\"", own, i, R"(":{"type":"string"})");
    absl::StrAppend(&names, comma, "\"", own, i, "\"");
  }
  return absl::StrCat(R"({"type":"object","properties":{)", properties, R"(},"required":[)", names,
                      "]}");
}

std::string Union(const std::string& own) {
  std::string cases;
  for (int i = 0; i < 200; ++i) {
    absl::StrAppend(&cases, i == 0 ? "" : ",",
                    R"({"type":"object","properties":{"kind":{"const":")", own, i,
                    R"("},"x":{"type":"string"}},"required":["kind"]})");
  }
  return absl::StrCat(R"({"anyOf":[)", cases, "]}");
}

constexpr char kTree[] = R"({"type": "object", "properties": {
  "OWN": {"type": "integer", "minimum": 0, "maximum": 99},
  "children": {"type": "array", "items": {"$ref": "#"}, "maxItems": 2}}, "required": ["OWN"]})";

constexpr char kTagged[] = R"({"type": "array", "minItems": 1, "items": {"oneOf": [
  {"type": "object", "properties": {"kind": {"const": "cat"},
    "OWN": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["kind", "OWN"]},
  {"type": "object", "properties": {"kind": {"enum": ["dog", "wolf"]},
    "name": {"type": "string", "maxLength": 8}}, "required": ["kind"]}]}})";

constexpr char kRecord[] =
    R"({"$defs": {"id": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"}},
  "type": "object", "properties": {
    "OWN": {"$ref": "#/$defs/id"},
    "created": {"type": "string", "format": "date-time"},
    "mail": {"type": "string", "format": "email"},
    "title": {"type": "string", "minLength": 3, "maxLength": 60},
    "state": {"enum": ["open", "closed", "merged", null]},
    "votes": {"type": "integer", "minimum": -1000, "maximum": 65535},
    "tags": {"type": "array", "items": {"type": "string", "maxLength": 20}, "maxItems": 12},
    "peers": {"type": "array", "items": {"$ref": "#/$defs/id"}, "maxItems": 20},
    "place": {"type": "object", "properties": {"city": {"type": "string"},
      "zip": {"type": "string", "pattern": "^[0-9]{5}$"}}, "required": ["city"]}},
  "required": ["OWN", "created", "title", "state", "tags"]})";

}  // namespace

absl::StatusOr<TokenTexts> ReadTokenizerModel(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  TokenTexts texts;
  const bool read = ReadFields(bytes, [&](uint32_t tag, CodedInputStream& in) {
    std::string piece;
    return tag == kModelPiece && ReadText(in, &piece) && AddPiece(piece, &texts);
  });
  if (!read || texts.tokens.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": no SentencePiece model"));
  }
  return texts;
}

TokenTexts SomeTokenTexts(int32_t size) {
  TokenTexts texts;
  uint32_t state = 1;
  const auto draw = [&state](uint32_t below) {
    state = state * 1664525u + 1013904223u;
    return (state >> 8) % below;
  };
  for (int32_t id = 0; id < size; ++id) {
    if (id < 256) {
      texts.tokens.emplace_back(1, static_cast<char>(id));
      continue;
    }
    std::string token(draw(2), ' ');
    for (uint32_t left = 1 + draw(8); left > 0; --left) {
      token += "abcdefghijklmnopqrstuvwxyz0123456789\"{}[]:,.-"[draw(45)];
    }
    texts.tokens.push_back(std::move(token));
  }
  return texts;
}

std::string NewSchema(SchemaKind kind, int32_t number) {
  const std::string own = absl::StrCat("n", number, "_");
  if (kind == SchemaKind::kWide) return Wide(own);
  if (kind == SchemaKind::kUnion) return Union(own);
  const char* const text = kind == SchemaKind::kTree     ? kTree
                           : kind == SchemaKind::kTagged ? kTagged
                                                         : kRecord;
  return absl::StrReplaceAll(text, {{"OWN", own}});
}

}  // namespace behemoth::bench
