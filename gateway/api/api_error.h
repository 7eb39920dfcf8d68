// absl::Status -> HTTP: the only table (spec api.md 5, operations.md 4.5).
//
// A Status carries what HTTP needs beside code and message as payloads, set by the functions below
// and lost by nobody: param (the field), code_name, Retry-After, and whether a RESOURCE_EXHAUSTED
// is this key's (429) or the whole service's (503, the default). Thread-safe free functions.
#pragma once

#include <absl/status/status.h>

#include <optional>
#include <string>
#include <string_view>

namespace behemoth::gateway {

struct ApiError {
  int http = 500;
  std::string type;                  // "BadRequestError"
  std::string message;               // valid UTF-8
  std::optional<std::string> param;  // JSON null if absent
  std::string code_name;             // "" = left out
  std::optional<int> retry_after_s;  // the Retry-After header
};

// INVALID_ARGUMENT about one field of the request.
absl::Status InvalidField(std::string_view param, std::string_view message);

absl::Status WithParam(absl::Status status, std::string_view param);
absl::Status WithCodeName(absl::Status status, std::string_view code_name);
absl::Status WithRetryAfter(absl::Status status, int seconds);
absl::Status WithKeyLimit(absl::Status status);  // RESOURCE_EXHAUSTED becomes 429

// NOT_FOUND, param model: "The model `X` does not exist."
absl::Status UnknownModel(std::string_view model);
// INVALID_ARGUMENT, param input_tokens, code_name context_length_exceeded.
absl::Status ContextExceeded(uint64_t context_tokens, uint64_t prompt_tokens,
                             uint64_t output_tokens);
absl::Status WrongKey(std::string_view message);  // UNAUTHENTICATED

// Precondition: !status.ok(). INTERNAL and UNKNOWN never show their message to the client.
ApiError ToApiError(const absl::Status& status);

// Errors that HTTP itself finds: 400, 404, 405, 408, 411, 413, 415, 417, 431, 503, 505.
ApiError HttpError(int http, std::string_view message);

// {"error": {"message", "type", "param", "code"[, "code_name"]}}: a body, and the data of an SSE
// error event.
std::string ErrorJson(const ApiError& error);

}  // namespace behemoth::gateway
