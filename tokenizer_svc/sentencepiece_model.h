// Reads tokenizer.model: a sentencepiece BPE model with identity normalisation.
#pragma once

#include <absl/status/statusor.h>

#include <string_view>

#include "tokenizer_svc/tokenizer_spec.h"

namespace behemoth::tokenizer {

// The tokenizer.json that Hugging Face makes of this model with legacy=false: control tokens as
// added tokens, a space mark at the start of the input only, <s> in front. With it a rendered
// prompt gets mistral_common's ids, because the template prints each later space itself.
// INVALID_ARGUMENT naming the field of whatever is broken or not supported.
absl::StatusOr<TokenizerSpec> ParseSentencePieceModel(std::string_view bytes);

}  // namespace behemoth::tokenizer
