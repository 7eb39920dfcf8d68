// From what a client sent to token ids: render, then encode. Loop thread; `done` runs on the loop,
// never from inside the call.
#pragma once

#include <absl/functional/any_invocable.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gateway/api/chat_request.h"
#include "gateway/api/completion_request.h"
#include "gateway/session/services.h"

namespace behemoth::gateway {

struct PreparedPrompt {
  std::vector<uint32_t> ids;
  std::string text;                // as rendered or as sent; empty for a prompt of ids
  std::string prefill;             // what the assistant's turn already holds
  bool fresh_turn = false;         // the next token begins an assistant's turn of the template
  bool begins_with_calls = false;  // the prompt ends with the token that tool calls begin with
};

// The token that tool calls begin with; absent: the model has none.
std::optional<uint32_t> ToolCallsId(const Vocabulary& vocabulary);

using PreparedPrompts = std::vector<PreparedPrompt>;
using Prepared = absl::AnyInvocable<void(absl::StatusOr<PreparedPrompts>)>;

void PrepareChat(const Services& services, const ModelText& text, ChatPrompt prompt,
                 absl::Time deadline, Loop& loop, Prepared done);
void PrepareRaw(const Services& services, const ModelText& text, std::vector<RawPrompt> prompts,
                bool add_special_tokens, absl::Time deadline, Loop& loop, Prepared done);

}  // namespace behemoth::gateway
