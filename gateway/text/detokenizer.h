// Ids -> text, one id at a time: only whole UTF-8 characters come out. Thread-compatible; one per
// sequence. O(bytes of the token) per call, no look back.
//
// Bytes that can never become a character are given out as one U+FFFD each, as sentencepiece does;
// valid text equals Hugging Face's decode (spec model.md 2.7).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "gateway/text/token_table.h"

namespace behemoth::gateway {

struct DetokenizerOptions {
  bool skip_special_tokens = true;
  // The one space that a fresh assistant turn begins with: set only if the prompt's last id is the
  // template's end of a user turn; never after a prefill nor in /v1/completions.
  bool strip_leading_space = false;
};

// Bytes -> whole characters.
class Utf8Assembler {
 public:
  // Appends what is complete to `out`; keeps at most 3 bytes.
  void Push(std::string_view bytes, std::string& out);
  // The end: each byte kept becomes U+FFFD.
  void Flush(std::string& out);
  bool empty() const { return pending_.empty(); }

 private:
  std::string pending_;  // a proper prefix of a valid character
};

class Detokenizer {
 public:
  Detokenizer(std::shared_ptr<const TokenTable> table, const DetokenizerOptions& options);

  // Appends the text that `id` completes to `out`: nothing while a character is half there. An id
  // outside the vocabulary is U+FFFD.
  void Push(uint32_t id, std::string& out);
  void Flush(std::string& out);
  // Bytes of a character that is not complete are held back.
  bool mid_character() const { return !assembler_.empty(); }

 private:
  std::shared_ptr<const TokenTable> table_;
  DetokenizerOptions options_;
  Utf8Assembler assembler_;
};

}  // namespace behemoth::gateway
