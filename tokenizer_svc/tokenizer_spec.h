// What a tokenizer file says, after reading and before use: a value, the same for both file kinds.
//
// Readers (tokenizer_json, sentencepiece_model) fill it and refuse what it cannot express; Encoder
// and Vocabulary are built from it. Source: the tokenizer.json layout of Hugging Face `tokenizers`.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace behemoth::tokenizer {

// U+2581, which stands for a space inside a vocabulary.
inline constexpr std::string_view kSpaceMark = "\xE2\x96\x81";

// A string that is cut out of the text before anything else looks at it.
struct AddedToken {
  uint32_t id = 0;
  std::string content;
  bool special = false;     // control: never produced by user text
  bool normalized = false;  // matched in a second pass, after the others
  bool strip_left = false;  // also takes the white space before it
  bool strip_right = false;
};

// Joins the neighbours `left` and `right`; its place in the list is its rank.
struct Merge {
  uint32_t left = 0;
  uint32_t right = 0;
  uint32_t joined = 0;
};

enum class Prefix {
  kNever,
  kFirst,   // a space mark before a piece at the very start of the input, unless it has one
  kAlways,  // before every piece, unless it has one
  kForced,  // before every piece, even a second one (the "legacy" files)
};

struct SpecialIds {
  std::optional<uint32_t> bos, eos, unk, pad;
};

struct TokenizerSpec {
  std::vector<std::string> tokens;  // [vocabulary size]; a hole in the numbering is empty
  std::vector<Merge> merges;
  std::vector<AddedToken> added;
  std::optional<uint32_t> unk_id;  // of the model: what a character without a token becomes
  Prefix prefix = Prefix::kNever;
  bool spaces_to_marks = false;
  bool split_at_marks = false;  // each mark starts a piece of its own
  bool byte_fallback = false;   // a character without a token becomes its bytes; all 256 exist
  bool fuse_unk = false;
  bool ignore_merges = false;        // a piece that is a token as a whole is that token
  std::vector<uint32_t> prefix_ids;  // what add_special_tokens puts before and after
  std::vector<uint32_t> suffix_ids;
  SpecialIds special;
  std::string fingerprint;  // of the file
};

// "<0x0A>" -> 10; nullopt for anything else.
std::optional<uint8_t> ByteOfToken(std::string_view token);

// Eight times the largest vocabulary known; bounds what a broken file can make us allocate.
inline constexpr uint32_t kMaxVocabulary = 1u << 22;

}  // namespace behemoth::tokenizer
