// Hostile bodies: each is one 400 in the error shape, at once (operations.md 6, items 9-11).
#include "gateway/api/json_document.h"

#include "tests/unit/gateway/api/bodies.h"

namespace behemoth::gateway {
namespace {

constexpr Endpoints kRoutes[] = {kChatRoute, kCompletionRoute, kTokenizeRoute, kDetokenizeRoute};

// What a 400 says of `body`; "(accepted)" if it is taken.
std::string ParamOf(std::string_view body) {
  const auto read = ReadJsonObject(body);
  return read.ok() ? "(accepted)" : ToApiError(read.status()).param.value_or("(null)");
}

TEST(JsonDocumentTest, EveryRouteRefusesWhatIsNoJsonObject) {
  for (const Endpoints route : kRoutes) {
    for (const std::string_view body : {"",
                                        " ",
                                        "{",
                                        "}",
                                        "{}}",
                                        "[]",
                                        "null",
                                        "1",
                                        "\"a\"",
                                        "{\"a\":1}{}",
                                        "{\"a\":1} x",
                                        "{\"a\":1,}",
                                        "{'a':1}",
                                        "{a:1}",
                                        "{\"a\" 1}",
                                        "{\"a\":01}",
                                        "{\"a\":1 /* c */}",
                                        "// c\n{}",
                                        "{\"a\":tru}",
                                        "{\"a\":+1}",
                                        "{\"a\":\"\t\"}",
                                        "{\"a\":\"\\x\"}",
                                        "\xEF\xBB\xBF{}",
                                        "\xFF\xFE{\0}"}) {
      SCOPED_TRACE(body);
      const absl::Status status = Parse(route, body);
      ASSERT_FALSE(status.ok());
      EXPECT_EQ(ToApiError(status).http, 400);
      EXPECT_EQ(ToApiError(status).type, "BadRequestError");
    }
  }
}

TEST(JsonDocumentTest, AValidBodyMayHaveWhiteSpaceAroundItAndNothingElse) {
  EXPECT_EQ(ParamOf(" \r\n\t{\"a\" : 1 }\n "), "(accepted)");
  using std::string_view_literals::operator""sv;
  for (const std::string_view body : {"{}\0"sv, "{}\0garbage"sv, "\0{}"sv, "{\"a\":1\0}"sv,
                                      "{}\v"sv, "{}\xC2\xA0"sv, "{} //"sv, "{}#"sv}) {
    EXPECT_EQ(ParamOf(body), "(null)");
  }
}

TEST(JsonDocumentTest, TheErrorNamesThePathOfTheFault) {
  EXPECT_EQ(ParamOf(R"({"a":1,"temperature":NaN})"), "temperature");
  EXPECT_EQ(ParamOf(R"({"a":1,"temperature":1e400})"), "temperature");
  EXPECT_EQ(ParamOf(R"({"messages":[{"role":"user","content":"a"},{"content":tru}]})"),
            "messages[1].content");
  EXPECT_EQ(ParamOf(R"({"stop":["a","b",1e999]})"), "stop[2]");
  EXPECT_EQ(ParamOf(R"({"stop":["a",["b",x]]})"), "stop[1][1]");
}

TEST(JsonDocumentTest, ADuplicateKeyIsNamedItself) {
  EXPECT_EQ(ParamOf(R"({"n":1,"a":2,"n":1})"), "n");
  EXPECT_EQ(ParamOf(R"({"a":[{"x":1,"y":2,"x":3}]})"), "a[0].x");
  EXPECT_EQ(ParamOf(R"({"a":1,"\u0061":2})"), "a");
  EXPECT_EQ(ParamOf(R"({"a":{"x":1},"b":{"x":1}})"), "(accepted)");
}

TEST(JsonDocumentTest, DepthIsBoundedAt100) {
  const auto nested = [](int levels) {  // the body itself is one
    return "{\"a\":" + std::string(levels - 1, '[') + std::string(levels - 1, ']') + "}";
  };
  EXPECT_TRUE(ReadJsonObject(nested(100)).ok());
  EXPECT_FALSE(ReadJsonObject(nested(101)).ok());
  const auto deep = ReadJsonObject(nested(1'000'000));
  ASSERT_FALSE(deep.ok());
  EXPECT_LT(ErrorJson(ToApiError(deep.status())).size(), 1000u);
  std::string objects;
  for (int i = 0; i < 10'000; ++i) objects += "{\"a\":";
  EXPECT_FALSE(ReadJsonObject(objects).ok());
}

TEST(JsonDocumentTest, AMillionKeysAreRefused) {
  std::string body = "{";
  for (int i = 0; i < 1'000'000; ++i) body += "\"" + std::to_string(i) + "\":0,";
  body.back() = '}';
  EXPECT_FALSE(ReadJsonObject(body).ok());
}

TEST(JsonDocumentTest, AMillionValuesAreAllThatABodyHolds) {
  const auto list = [](size_t values) {  // the object and the list are two more
    std::string body = R"({"a":[)";
    for (size_t i = 0; i < values; ++i) body += "1,";
    body.back() = ']';
    return body + "}";
  };
  EXPECT_EQ(ParamOf(list((1 << 20) - 2)), "(accepted)");
  EXPECT_EQ(ParamOf(list((1 << 20) - 1)), "a[1048574]");
}

TEST(JsonDocumentTest, WhatTheClientWroteIsNotRepeatedAtLength) {
  const std::string secret = "the secret prompt ";
  std::string prompt;
  for (int i = 0; i < 1000; ++i) prompt += secret;
  const std::string bodies[] = {
      R"({"a":")" + prompt,
      R"({"a":")" + prompt + "\xFF\"}",
      R"({")" + prompt + R"(":NaN})",
      R"({")" + prompt + R"(":1,")" + prompt + R"(":1})",
      R"({"a":1)" + std::string(100'000, '0') + "e400}",
  };
  for (const std::string& body : bodies) {
    const auto read = ReadJsonObject(body);
    ASSERT_FALSE(read.ok());
    EXPECT_LT(ErrorJson(ToApiError(read.status())).size(), 600u);
  }
}

TEST(JsonDocumentTest, TextIsStrictlyUtf8) {
  const auto content = [](std::string_view bytes) {
    return R"({"a":")" + std::string(bytes) + R"("})";
  };
  for (const std::string_view good :
       {"\x7F", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80",
        "\xEF\xBF\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF", "\xE2\x80\xAE", "\\u0000",
        "\\ud83d\\ude00", "\xF0\x9F\x98\x80"}) {
    EXPECT_EQ(ParamOf(content(good)), "(accepted)") << good;
  }
  for (const std::string_view bad :
       {"\x80", "\xC0\x80", "\xC1\xBF", "\xC2", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xED\xBF\xBF",
        "\xEF\xBF", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\\ud800",
        "\\udc00", "\\ud800\\ud800", "\\ud800a", "\\u12", "\n"}) {
    EXPECT_EQ(ParamOf(content(bad)), "a") << bad;
  }
}

TEST(JsonDocumentTest, AnEscapedPairAndItsBytesAreTheSameText) {
  const auto escaped = ReadJsonObject(R"({"a":"\ud83d\ude00\u0000\u2028"})");
  ASSERT_TRUE(escaped.ok());
  EXPECT_EQ((*escaped)["a"].get<std::string>(), std::string("\xF0\x9F\x98\x80\0\xE2\x80\xA8", 8));
}

}  // namespace
}  // namespace behemoth::gateway
