// POST /tokenize and /detokenize: JSON -> typed requests. Thread-safe; errors as in chat_request.h.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "gateway/api/chat_request.h"

namespace behemoth::gateway {

struct TokenizeRequest {
  std::string model;
  std::variant<std::string, ChatPrompt> input;  // `prompt` or `messages`
  bool add_special_tokens = true;               // [text true, messages false]
  bool return_token_strs = false;
  std::vector<Warning> warnings;
};

struct DetokenizeRequest {
  std::string model;
  std::vector<uint32_t> tokens;
  std::vector<Warning> warnings;
};

absl::StatusOr<TokenizeRequest> ParseTokenizeRequest(std::string_view body,
                                                     const ParseOptions& options);
absl::StatusOr<DetokenizeRequest> ParseDetokenizeRequest(std::string_view body,
                                                         const ParseOptions& options);

}  // namespace behemoth::gateway
