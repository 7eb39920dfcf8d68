// POST /v1/completions: JSON -> CompletionRequest. Thread-safe free functions; errors as in
// chat_request.h.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "gateway/api/generation_options.h"

namespace behemoth::gateway {

// One prompt: raw text (control strings in it count) or ids.
using RawPrompt = std::variant<std::string, std::vector<uint32_t>>;

struct CompletionRequest {
  std::vector<RawPrompt> prompts;  // 1..64, none empty; choice index = prompt * n + sequence
  bool add_special_tokens = true;  // <s> in front of text unless it already is there
  ReasoningFormat reasoning_format = ReasoningFormat::kNone;
  GenerationOptions options;  // max_tokens [16]: absent only where the client asked for no limit
};

absl::StatusOr<CompletionRequest> ParseCompletionRequest(std::string_view body,
                                                         const ParseOptions& options);

}  // namespace behemoth::gateway
