// The fields that chat and completions share: RequestFields -> GenerationOptions. Thread-safe.
// Included by api/'s .cc files only.
#pragma once

#include <absl/status/statusor.h>

#include "gateway/api/generation_options.h"
#include "gateway/api/request_fields.h"

namespace behemoth::gateway {

// Everything but the prompt, the logprobs' own shape and the warnings of other fields.
absl::StatusOr<GenerationOptions> ReadGenerationOptions(const RequestFields& fields);

absl::StatusOr<ReasoningFormat> ReadReasoningFormat(const RequestFields& fields,
                                                    ReasoningFormat otherwise);

}  // namespace behemoth::gateway
