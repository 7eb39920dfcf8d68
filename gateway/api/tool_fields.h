// Tools: what a request offers, what it says of their choice, and the calls in its messages.
// Thread-safe. Included by api/'s .cc files only.
// Sources: OpenAI's API reference (chat completions), mistral-common (form and ids of calls).
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <string>
#include <vector>

#include "gateway/api/chat_request.h"
#include "gateway/api/request_fields.h"

namespace behemoth::gateway {

// `tools` as the template sees them: the client's own list; "" = none.
absl::StatusOr<std::string> ReadTools(RequestFields& fields);

// tool_choice, parallel_tool_calls and `strict` -> how the answer is made. A call that must come is
// a structure: the list of calls, each with its function's parameters; so is one that may come, if
// it must be strict or alone. After ReadTools said OK.
absl::Status ReadToolChoice(RequestFields& fields, GenerationOptions& options);

// The tool_calls of the message `at`. Ids that are not this model's (9 of [a-zA-Z0-9]) are replaced
// by such ones, always by the same, and named in `fields.warnings`.
absl::StatusOr<std::vector<ToolCall>> ReadToolCalls(const std::string& at, const Json& calls,
                                                    RequestFields& fields);
absl::StatusOr<std::string> ReadToolCallId(const std::string& at, const Json& id,
                                           RequestFields& fields);

// Each call is answered by one message of role tool before anything else is said.
absl::Status CheckToolMessages(const std::vector<ChatMessage>& messages);

// Names what `object` holds beside `known`, in `fields.warnings`. Null and empty members say
// nothing: clients send whole replies back as messages.
void WarnOfOthers(const std::string& at, const Json& object,
                  std::initializer_list<std::string_view> known, RequestFields& fields);

}  // namespace behemoth::gateway
