// Segments -> ids, equal to Hugging Face `tokenizers` for the same file.
//
// Immutable after construction, thread-safe without locks. Time n log n in the text's bytes,
// whatever the text. Bytes that are not UTF-8 become byte tokens (or the unknown token).
#pragma once

#include <absl/container/flat_hash_map.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer_svc/added_token_matcher.h"
#include "tokenizer_svc/bpe.h"
#include "tokenizer_svc/tokenizer_spec.h"

namespace behemoth::tokenizer {

struct Segment {
  enum class Kind {
    kText,    // control strings inside stay text
    kMarked,  // control strings become their ids
    kControl,
  };
  Kind kind = Kind::kText;
  std::string_view text;    // kText, kMarked
  uint32_t control_id = 0;  // kControl
};

class Encoder {
 public:
  explicit Encoder(const TokenizerSpec& spec);

  // Text segments that follow each other are one string. Precondition: control ids were checked.
  std::vector<uint32_t> Encode(std::span<const Segment> segments, bool add_special_tokens) const;

 private:
  // One call's state: what is encoded, and what it has become.
  struct Call {
    std::string_view text;
    std::vector<Span> trusted;
    bool at_start = true;  // nothing precedes `text` in the input
    std::vector<uint32_t> symbols;
    Bpe::Scratch scratch;
    std::vector<uint32_t> ids;
  };

  void EncodeRun(Call& call) const;
  void EncodePiece(Call& call, Span span) const;
  void EncodeWord(Call& call, std::string_view word, bool with_mark) const;
  std::optional<uint32_t> WholeToken(std::string_view word, bool with_mark) const;
  void AppendSymbols(Call& call, std::string_view word) const;
  std::optional<uint32_t> SymbolOf(uint32_t code_point) const;
  bool StartsWithMark(std::string_view text) const;

  Prefix prefix_;
  bool spaces_to_marks_;
  bool split_at_marks_;
  bool byte_fallback_;
  bool fuse_unk_;
  bool ignore_merges_;
  std::optional<uint32_t> unk_id_;
  std::vector<uint32_t> prefix_ids_;
  std::vector<uint32_t> suffix_ids_;
  std::vector<uint32_t> byte_ids_;                        // [256], with byte fallback
  absl::flat_hash_map<uint32_t, uint32_t> symbols_;       // code point -> id
  absl::flat_hash_map<std::string, uint32_t> whole_ids_;  // only with ignore_merges
  AddedTokenMatcher first_pass_;
  AddedTokenMatcher second_pass_;
  Bpe bpe_;
};

}  // namespace behemoth::tokenizer
