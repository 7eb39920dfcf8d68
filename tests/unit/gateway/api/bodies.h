// Bodies of every route around a few members under test, and what the parser says of them.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "gateway/api/api_error.h"
#include "gateway/api/chat_request.h"
#include "gateway/api/completion_request.h"
#include "gateway/api/field_table.h"
#include "gateway/api/token_request.h"

namespace behemoth::gateway {

// `"name":value` in a body that is else the smallest valid one of its route.
inline std::string BodyOf(Endpoints route, std::string_view members) {
  std::string body = route == kChatRoute         ? R"({"messages":[{"role":"user","content":"hi"}])"
                     : route == kCompletionRoute ? R"({"prompt":"hi")"
                     : route == kTokenizeRoute   ? R"({"messages":[{"role":"user","content":"hi"}])"
                                                 : R"({"tokens":[1])";
  if (!members.empty()) body.append(",").append(members);
  return body + "}";
}

inline std::string Member(std::string_view name, std::string_view json) {
  std::string member = "\"";
  return member.append(name).append("\":").append(json);
}

// The two generating routes by their common part.
inline absl::StatusOr<GenerationOptions> ParseOptionsOf(Endpoints route, std::string_view members,
                                                        const ParseOptions& parse = {}) {
  const std::string body = BodyOf(route, members);
  if (route == kChatRoute) {
    auto chat = ParseChatRequest(body, parse);
    if (!chat.ok()) return chat.status();
    return chat->options;
  }
  auto completion = ParseCompletionRequest(body, parse);
  if (!completion.ok()) return completion.status();
  return completion->options;
}

inline absl::Status Parse(Endpoints route, std::string_view body, const ParseOptions& parse = {}) {
  switch (route) {
    case kChatRoute:
      return ParseChatRequest(body, parse).status();
    case kCompletionRoute:
      return ParseCompletionRequest(body, parse).status();
    case kTokenizeRoute:
      return ParseTokenizeRequest(body, parse).status();
    default:
      return ParseDetokenizeRequest(body, parse).status();
  }
}

inline absl::StatusOr<GenerationOptions> Chat(std::string_view members) {
  return ParseOptionsOf(kChatRoute, members);
}

// A 400 about `param`, in the words of spec api.md section 5.
inline void ExpectRefused(const absl::Status& status, std::string_view param) {
  ASSERT_FALSE(status.ok()) << "accepted";
  const ApiError error = ToApiError(status);
  EXPECT_EQ(error.http, 400);
  EXPECT_EQ(error.type, "BadRequestError");
  EXPECT_EQ(error.param.value_or("(null)"), param) << error.message;
  EXPECT_LT(error.message.size(), 600u);
}

inline std::vector<std::string> FieldsOf(const std::vector<Warning>& warnings) {
  std::vector<std::string> fields;
  for (const Warning& warning : warnings) fields.push_back(warning.field);
  return fields;
}

}  // namespace behemoth::gateway
