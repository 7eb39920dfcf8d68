// A loaded model's text side: encoder, what each id means, templates. Immutable, thread-safe.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "tokenizer_svc/encoder.h"
#include "tokenizer_svc/tokenizer_spec.h"

namespace behemoth::tokenizer {

// What lies beside the tokenizer file.
struct PromptTexts {
  std::string chat_template;  // empty = none
  std::map<std::string, std::string> named_templates;
};

class Vocabulary {
 public:
  Vocabulary(const TokenizerSpec& spec, PromptTexts texts);

  const Encoder& encoder() const { return encoder_; }
  size_t size() const { return token_bytes_.size(); }
  // The bytes that an id stands for in running text; a control token's own name.
  const std::vector<std::string>& token_bytes() const { return token_bytes_; }
  const std::vector<uint32_t>& control_ids() const { return control_ids_; }  // ascending
  bool IsControl(uint32_t id) const;
  // Lower-case hex SHA-256 of the file that was read, which decides ids and bytes.
  const std::string& fingerprint() const { return fingerprint_; }
  const SpecialIds& special() const { return special_; }
  const PromptTexts& texts() const { return texts_; }

 private:
  Encoder encoder_;
  std::vector<std::string> token_bytes_;
  std::vector<uint32_t> control_ids_;
  std::string fingerprint_;
  SpecialIds special_;
  PromptTexts texts_;
};

}  // namespace behemoth::tokenizer
