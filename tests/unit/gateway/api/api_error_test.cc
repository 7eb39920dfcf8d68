// The error rows of spec api.md section 5, byte by byte.
#include "gateway/api/api_error.h"

#include "tests/unit/gateway/api/bodies.h"

namespace behemoth::gateway {
namespace {

std::string JsonOf(const absl::Status& status) { return ErrorJson(ToApiError(status)); }

TEST(ApiErrorTest, EachRefusalIsTheSpecsObjectByteForByte) {
  EXPECT_EQ(JsonOf(ParseChatRequest("{}", {}).status()),
            R"({"error":{"message":"messages: is required",)"
            R"("type":"BadRequestError","param":"messages","code":400}})");
  EXPECT_EQ(JsonOf(Chat(R"("top_p":2)").status()),
            R"({"error":{"message":"top_p: must be over 0 and at most 1",)"
            R"("type":"BadRequestError","param":"top_p","code":400}})");
  EXPECT_EQ(JsonOf(Chat(R"("temperature":"1")").status()),
            R"({"error":{"message":"temperature: must be a number",)"
            R"("type":"BadRequestError","param":"temperature","code":400}})");
  EXPECT_EQ(JsonOf(Chat(R"("n":true)").status()),
            R"({"error":{"message":"n: must be an integer",)"
            R"("type":"BadRequestError","param":"n","code":400}})");
  EXPECT_EQ(JsonOf(Chat(R"("documents":[1])").status()),
            R"({"error":{"message":"documents: is not supported yet",)"
            R"("type":"BadRequestError","param":"documents","code":400}})");
  EXPECT_EQ(JsonOf(ParseChatRequest("[]", {}).status()),
            R"({"error":{"message":"the body must be a JSON object",)"
            R"("type":"BadRequestError","param":null,"code":400}})");
  EXPECT_EQ(JsonOf(UnknownModel("X")), R"({"error":{"message":"The model `X` does not exist.",)"
                                       R"("type":"NotFoundError","param":"model","code":404}})");
  EXPECT_EQ(JsonOf(WrongKey("The API key is missing or wrong.")),
            R"({"error":{"message":"The API key is missing or wrong.",)"
            R"("type":"AuthenticationError","param":null,"code":401}})");
}

TEST(ApiErrorTest, TheContextErrorNamesLimitPromptAndOutput) {
  EXPECT_EQ(JsonOf(ContextExceeded(4096, 4000, 97)),
            R"({"error":{"message":"This model's maximum context length is 4096 tokens. )"
            R"(The request asks for 4097)"
            R"( tokens: 4000 of the prompt and 97 of the output.)"
            R"( Shorten the messages or lower max_tokens.",)"
            R"("type":"BadRequestError","param":"input_tokens","code":400,)"
            R"("code_name":"context_length_exceeded"}})");
}

struct Row {
  absl::StatusCode code;
  int http;
  std::string type;
  bool retry;
};

TEST(ApiErrorTest, EveryStatusHasItsHttpCodeAndType) {
  using S = absl::StatusCode;
  const Row rows[] = {
      {S::kInvalidArgument, 400, "BadRequestError", false},
      {S::kOutOfRange, 400, "BadRequestError", false},
      {S::kUnauthenticated, 401, "AuthenticationError", false},
      {S::kPermissionDenied, 403, "PermissionDeniedError", false},
      {S::kNotFound, 404, "NotFoundError", false},
      {S::kAlreadyExists, 409, "ConflictError", false},
      {S::kAborted, 409, "ConflictError", false},
      {S::kCancelled, 499, "RequestCancelledError", false},
      {S::kInternal, 500, "InternalServerError", false},
      {S::kUnknown, 500, "InternalServerError", false},
      {S::kDataLoss, 500, "InternalServerError", false},
      {S::kUnimplemented, 501, "NotImplementedError", false},
      {S::kResourceExhausted, 503, "ServiceUnavailableError", true},
      {S::kFailedPrecondition, 503, "ServiceUnavailableError", true},
      {S::kUnavailable, 503, "ServiceUnavailableError", true},
      {S::kDeadlineExceeded, 504, "GatewayTimeoutError", false},
  };
  for (const Row& row : rows) {
    const ApiError error = ToApiError(absl::Status(row.code, "why"));
    EXPECT_EQ(error.http, row.http);
    EXPECT_EQ(error.type, row.type);
    EXPECT_EQ(error.retry_after_s.has_value(), row.retry) << row.http;
    EXPECT_EQ(error.message, row.http == 500 ? "internal error" : "why");
    EXPECT_EQ(error.param, std::nullopt);
  }
}

TEST(ApiErrorTest, WhatAStatusCarriesSurvivesTheWayToHttp) {
  const absl::Status busy = WithRetryAfter(WithKeyLimit(absl::ResourceExhaustedError("busy")), 7);
  const ApiError error = ToApiError(WithCodeName(WithParam(busy, "n"), "rate"));
  EXPECT_EQ(error.http, 429);
  EXPECT_EQ(error.type, "RateLimitError");
  EXPECT_EQ(error.retry_after_s, 7);
  EXPECT_EQ(ErrorJson(error),
            R"({"error":{"message":"busy","type":"RateLimitError","param":"n","code":429,)"
            R"("code_name":"rate"}})");
}

TEST(ApiErrorTest, AMessageIsEscapedAndValidUtf8) {
  EXPECT_EQ(JsonOf(UnknownModel("a\"\n\x1B\xFF")),
            "{\"error\":{\"message\":\"The model `a\\\"\\n\\u001b\xEF\xBF\xBD` does not exist.\","
            "\"type\":\"NotFoundError\",\"param\":\"model\",\"code\":404}}");
}

TEST(ApiErrorTest, WhatHttpFindsHasTheSameShape) {
  const std::pair<int, std::string> rows[] = {
      {400, "BadRequestError"},           {404, "NotFoundError"},
      {405, "MethodNotAllowedError"},     {408, "RequestTimeoutError"},
      {411, "BadRequestError"},           {413, "PayloadTooLargeError"},
      {415, "UnsupportedMediaTypeError"}, {431, "HeadersTooLargeError"},
      {503, "ServiceUnavailableError"},
  };
  for (const auto& [http, type] : rows) {
    EXPECT_EQ(ErrorJson(HttpError(http, "x")), R"({"error":{"message":"x","type":")" + type +
                                                   R"(","param":null,"code":)" +
                                                   std::to_string(http) + "}}");
  }
  EXPECT_EQ(HttpError(503, "x").retry_after_s, 1);
}

}  // namespace
}  // namespace behemoth::gateway
