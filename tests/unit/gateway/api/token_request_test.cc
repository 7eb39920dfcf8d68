#include "gateway/api/token_request.h"

#include "tests/unit/gateway/api/bodies.h"

namespace behemoth::gateway {
namespace {

TEST(TokenRequestTest, TokenizeTakesTextOrMessagesAndKnowsWhoseTheSpecialTokensAre) {
  const auto text = ParseTokenizeRequest(R"({"model":"m","prompt":"a b"})", {});
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(text->model, "m");
  EXPECT_EQ(std::get<std::string>(text->input), "a b");
  EXPECT_TRUE(text->add_special_tokens);
  EXPECT_FALSE(text->return_token_strs);
  const auto alias = ParseTokenizeRequest(R"({"text":"", "add_special_tokens":false})", {});
  ASSERT_TRUE(alias.ok()) << alias.status();
  EXPECT_EQ(std::get<std::string>(alias->input), "");
  EXPECT_FALSE(alias->add_special_tokens);
  const auto chat = ParseTokenizeRequest(
      R"({"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}],
          "return_token_strs":true})",
      {});
  ASSERT_TRUE(chat.ok()) << chat.status();
  EXPECT_TRUE(std::get<ChatPrompt>(chat->input).continue_final_message);
  EXPECT_FALSE(chat->add_special_tokens);
  EXPECT_TRUE(chat->return_token_strs);
}

TEST(TokenRequestTest, TokenizeRefusesByName) {
  const std::pair<std::string, std::string> wrong[] = {
      {"{}", "messages"},
      {R"({"prompt":"a","messages":[{"role":"user","content":"a"}]})", "prompt"},
      {R"({"prompt":["a"]})", "prompt"},
      {R"({"prompt":1})", "prompt"},
      {R"({"text":1})", "text"},
      {R"({"messages":[]})", "messages"},
      {R"({"messages":[{"role":"user","content":"a"}],"continue_final_message":true})",
       "continue_final_message"},
      {R"({"messages":[{"role":"user","content":"a"}],"chat_template":"x"})", "chat_template"},
      {R"({"messages":[{"role":"user","content":"a"}],"chat_template_kwargs":{"x":1}})",
       "chat_template_kwargs.x"},
      {R"({"prompt":"a","model":1})", "model"},
  };
  for (const auto& [body, param] : wrong) {
    SCOPED_TRACE(body);
    ExpectRefused(ParseTokenizeRequest(body, {}).status(), param);
  }
}

TEST(TokenRequestTest, WhatOnlyMessagesUseIsNamedBesideText) {
  const auto request = ParseTokenizeRequest(
      R"({"prompt":"a","add_generation_prompt":false,"continue_final_message":true,
          "chat_template":"x","chat_template_kwargs":{"x":1}})",
      {});
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_THAT(FieldsOf(request->warnings),
              testing::UnorderedElementsAre("add_generation_prompt", "continue_final_message",
                                            "chat_template", "chat_template_kwargs"));
}

TEST(TokenRequestTest, DetokenizeTakesIds) {
  const auto request = ParseDetokenizeRequest(R"({"tokens":[1,4294967295],"model":"m"})", {});
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_THAT(request->tokens, testing::ElementsAre(1, 4294967295));
  EXPECT_EQ(request->model, "m");
  EXPECT_THAT(ParseDetokenizeRequest(R"({"tokens":[]})", {})->tokens, testing::IsEmpty());
  const std::pair<std::string, std::string> wrong[] = {
      {"{}", "tokens"},
      {R"({"tokens":null})", "tokens"},
      {R"({"tokens":"1"})", "tokens"},
      {R"({"tokens":[1,-1]})", "tokens[1]"},
      {R"({"tokens":[1.0]})", "tokens[0]"},
      {R"({"tokens":[1,2,4294967296]})", "tokens[2]"},
  };
  for (const auto& [body, param] : wrong) {
    SCOPED_TRACE(body);
    ExpectRefused(ParseDetokenizeRequest(body, {}).status(), param);
  }
}

}  // namespace
}  // namespace behemoth::gateway
