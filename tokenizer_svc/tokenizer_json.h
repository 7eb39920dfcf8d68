// Reads tokenizer.json: BPE with byte fallback as Llama and Mistral models ship it.
#pragma once

#include <absl/status/statusor.h>

#include <string_view>

#include "tokenizer_svc/tokenizer_spec.h"

namespace behemoth::tokenizer {

// INVALID_ARGUMENT naming the JSON path of whatever is broken or not supported: nothing that would
// change an id is ever skipped. `special` is left empty; tokenizer_config.json tells it.
absl::StatusOr<TokenizerSpec> ParseTokenizerJson(std::string_view text);

}  // namespace behemoth::tokenizer
