// The samplers of role-play clients beyond OpenAI's, in all the spellings that those clients have:
// RequestFields -> SamplingOptions. Thread-safe. Included by api/'s .cc files only.
#pragma once

#include <absl/status/status.h>

#include "gateway/api/generation_options.h"
#include "gateway/api/request_fields.h"

namespace behemoth::gateway {

// typical_p, top_n_sigma, XTC, smoothing, dynamic temperature, DRY, the samplers' order, phrases.
// Adds to the warnings of `fields`. INVALID_ARGUMENT names the field as the client wrote it.
absl::Status ReadSamplers(RequestFields& fields, SamplingOptions& sampling);

}  // namespace behemoth::gateway
