// messages and the flags around them: RequestFields -> ChatPrompt, for chat and /tokenize.
// Thread-safe. Included by api/'s .cc files only.
#pragma once

#include <absl/status/statusor.h>

#include "gateway/api/chat_request.h"
#include "gateway/api/request_fields.h"

namespace behemoth::gateway {

// `prefilled`: `thinking` will append the assistant's prefill, which settles the flags.
// What a message holds that no template sees is named in `fields.warnings`.
absl::StatusOr<ChatPrompt> ReadChatPrompt(RequestFields& fields, const ParseOptions& options,
                                          bool prefilled);

}  // namespace behemoth::gateway
