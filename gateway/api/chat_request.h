// POST /v1/chat/completions (and /render): JSON -> ChatRequest. Thread-safe free functions.
//
// Everything is decided here that needs neither the model nor the vocabulary: types, ranges,
// aliases, conflicts, defaults. What is accepted works or is named in `options.warnings`; anything
// else is INVALID_ARGUMENT with the field as its param (api_error.h).
#pragma once

#include <absl/status/statusor.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/api/generation_options.h"

namespace behemoth::gateway {

struct ToolCall {
  std::string id;         // 9 of [a-zA-Z0-9]
  std::string name;       // 1..64 of [a-zA-Z0-9_-]
  std::string arguments;  // JSON text, as the client wrote it; not checked
};

struct ChatMessage {
  std::string role;     // system, developer, user, assistant, tool: the template decides
  std::string content;  // text parts joined with "\n"; may be empty beside tool_calls
  std::optional<std::string> name;
  std::vector<ToolCall> tool_calls;  // the assistant's
  std::string tool_call_id;          // of role tool: the call that it answers
};

// `thinking`: exactly one of preset and prefill, or neither (a budget alone).
struct ThinkingOptions {
  std::optional<std::string> preset;
  std::optional<std::string> prefill;  // the phrase; "<think>\n" and "\n" are put around it
  std::optional<uint32_t> budget_tokens;
};

// The part of a request that decides the prompt; /tokenize takes it too.
struct ChatPrompt {
  std::vector<ChatMessage> messages;  // at least one
  // Settled: at most one of the two is true, and continue only after an assistant message.
  bool continue_final_message = false;
  bool add_generation_prompt = true;
  bool add_special_tokens = false;
  std::optional<std::string> chat_template;  // only if the operator trusts requests' templates
  std::string template_kwargs_json;          // an object of allow-listed names, or empty
  std::string tools_json;  // the client's list of functions, each name once; or empty
  // The answer is a call: the prompt ends with the token that calls begin with, unless a thought
  // is open and comes first.
  bool begins_with_calls = false;
};

struct ChatRequest {
  ChatPrompt prompt;
  std::optional<ThinkingOptions> thinking;  // ThinkingPresets::Apply turns it into a prefill
  ReasoningFormat reasoning_format = ReasoningFormat::kNone;  // kSeparate if `thinking` is given
  GenerationOptions options;
};

absl::StatusOr<ChatRequest> ParseChatRequest(std::string_view body, const ParseOptions& options);

}  // namespace behemoth::gateway
