// A model folder -> Vocabulary. Once, before serving.
#pragma once

#include <absl/status/statusor.h>

#include <memory>
#include <string>

#include "tokenizer_svc/vocabulary.h"

namespace behemoth::tokenizer {

// Reads tokenizer.json, or tokenizer.model where there is none, and what lies beside it:
// tokenizer_config.json, special_tokens_map.json, chat_template.jinja,
// additional_chat_templates/*.jinja.
// NOT_FOUND: neither tokenizer file. INVALID_ARGUMENT names the file and the field.
absl::StatusOr<std::unique_ptr<Vocabulary>> LoadVocabulary(const std::string& folder);

}  // namespace behemoth::tokenizer
