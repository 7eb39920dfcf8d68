#include "gateway/api/api_error.h"

#include <absl/strings/cord.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>

#include <utility>

#include "gateway/api/json_writer.h"

namespace behemoth::gateway {
namespace {

constexpr char kParam[] = "behemoth/param";
constexpr char kCodeName[] = "behemoth/code_name";
constexpr char kRetryAfter[] = "behemoth/retry_after_s";
constexpr char kKeyLimit[] = "behemoth/key_limit";

absl::Status With(absl::Status status, const char* url, std::string_view value) {
  status.SetPayload(url, absl::Cord(absl::string_view(value.data(), value.size())));
  return status;
}

std::optional<std::string> PayloadOf(const absl::Status& status, const char* url) {
  const auto payload = status.GetPayload(url);
  if (!payload) return std::nullopt;
  return std::string(*payload);
}

struct Row {
  absl::StatusCode code;
  int http;
  const char* type;
};

constexpr Row kRows[] = {
    {absl::StatusCode::kInvalidArgument, 400, "BadRequestError"},
    {absl::StatusCode::kOutOfRange, 400, "BadRequestError"},
    {absl::StatusCode::kUnauthenticated, 401, "AuthenticationError"},
    {absl::StatusCode::kPermissionDenied, 403, "PermissionDeniedError"},
    {absl::StatusCode::kNotFound, 404, "NotFoundError"},
    {absl::StatusCode::kAlreadyExists, 409, "ConflictError"},
    {absl::StatusCode::kAborted, 409, "ConflictError"},
    {absl::StatusCode::kCancelled, 499, "RequestCancelledError"},
    {absl::StatusCode::kResourceExhausted, 503, "ServiceUnavailableError"},
    {absl::StatusCode::kFailedPrecondition, 503, "ServiceUnavailableError"},
    {absl::StatusCode::kUnavailable, 503, "ServiceUnavailableError"},
    {absl::StatusCode::kUnimplemented, 501, "NotImplementedError"},
    {absl::StatusCode::kDeadlineExceeded, 504, "GatewayTimeoutError"},
};

}  // namespace

absl::Status InvalidField(std::string_view param, std::string_view message) {
  const auto at = [](std::string_view s) { return absl::string_view(s.data(), s.size()); };
  absl::Status status = absl::InvalidArgumentError(
      param.empty() ? std::string(message) : absl::StrCat(at(param), ": ", at(message)));
  return param.empty() ? status : WithParam(std::move(status), param);
}

absl::Status WithParam(absl::Status status, std::string_view param) {
  return With(std::move(status), kParam, param);
}
absl::Status WithCodeName(absl::Status status, std::string_view code_name) {
  return With(std::move(status), kCodeName, code_name);
}
absl::Status WithRetryAfter(absl::Status status, int seconds) {
  return With(std::move(status), kRetryAfter, std::to_string(seconds));
}
absl::Status WithKeyLimit(absl::Status status) { return With(std::move(status), kKeyLimit, "1"); }

absl::Status UnknownModel(std::string_view model) {
  return WithParam(absl::NotFoundError("The model `" + std::string(model) + "` does not exist."),
                   "model");
}

absl::Status ContextExceeded(uint64_t context_tokens, uint64_t prompt_tokens,
                             uint64_t output_tokens) {
  absl::Status status = absl::InvalidArgumentError(absl::StrCat(
      "This model's maximum context length is ", context_tokens, " tokens. The request asks for ",
      prompt_tokens + output_tokens, " tokens: ", prompt_tokens, " of the prompt and ",
      output_tokens, " of the output. Shorten the messages or lower max_tokens."));
  return WithCodeName(WithParam(std::move(status), "input_tokens"), "context_length_exceeded");
}

absl::Status WrongKey(std::string_view message) {
  return absl::UnauthenticatedError(absl::string_view(message.data(), message.size()));
}

ApiError ToApiError(const absl::Status& status) {
  ApiError error{.http = 500, .type = "InternalServerError", .message = "internal error"};
  for (const Row& row : kRows) {
    if (row.code != status.code()) continue;
    error.http = row.http;
    error.type = row.type;
    error.message = std::string(status.message());
  }
  if (status.code() == absl::StatusCode::kResourceExhausted && PayloadOf(status, kKeyLimit)) {
    error.http = 429;
    error.type = "RateLimitError";
  }
  error.param = PayloadOf(status, kParam);
  error.code_name = PayloadOf(status, kCodeName).value_or("");
  int seconds = 0;
  const auto retry = PayloadOf(status, kRetryAfter);
  if (retry && absl::SimpleAtoi(*retry, &seconds)) {
    error.retry_after_s = seconds;
  } else if (error.http == 429 || error.http == 503) {
    error.retry_after_s = 1;
  }
  return error;
}

ApiError HttpError(int http, std::string_view message) {
  ApiError error{.http = http, .type = "BadRequestError", .message = std::string(message)};
  if (http == 404) error.type = "NotFoundError";
  if (http == 405) error.type = "MethodNotAllowedError";
  if (http == 408) error.type = "RequestTimeoutError";
  if (http == 413) error.type = "PayloadTooLargeError";
  if (http == 415) error.type = "UnsupportedMediaTypeError";
  if (http == 431) error.type = "HeadersTooLargeError";
  if (http >= 500) error.type = "ServiceUnavailableError";
  if (http == 503) error.retry_after_s = 1;
  return error;
}

std::string ErrorJson(const ApiError& error) {
  std::string out = R"({"error":{"message":)";
  AppendJsonString(error.message, out);
  out += R"(,"type":)";
  AppendJsonString(error.type, out);
  out += R"(,"param":)";
  if (error.param) {
    AppendJsonString(*error.param, out);
  } else {
    out += "null";
  }
  absl::StrAppend(&out, R"(,"code":)", error.http);
  if (!error.code_name.empty()) {
    out += R"(,"code_name":)";
    AppendJsonString(error.code_name, out);
  }
  out += "}}";
  return out;
}

}  // namespace behemoth::gateway
