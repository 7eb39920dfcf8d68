// The fields that chat and completions share: RequestFields -> GenerationOptions. Thread-safe.
// Included by api/'s .cc files only.
#pragma once

#include <absl/status/statusor.h>

#include "gateway/api/generation_options.h"
#include "gateway/api/request_fields.h"

namespace behemoth::gateway {

// Everything but the prompt and the logprobs' own shape. Takes the warnings of `fields` along: read
// what may warn before it.
absl::StatusOr<GenerationOptions> ReadGenerationOptions(RequestFields& fields);

absl::StatusOr<ReasoningFormat> ReadReasoningFormat(RequestFields& fields,
                                                    ReasoningFormat otherwise);

}  // namespace behemoth::gateway
