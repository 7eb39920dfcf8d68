#include "gateway/api/completion_request.h"

#include "tests/unit/gateway/api/bodies.h"

namespace behemoth::gateway {
namespace {

using Ids = std::vector<uint32_t>;

absl::StatusOr<CompletionRequest> Prompt(std::string_view json, std::string_view more = "") {
  std::string body = Member("prompt", json);
  if (!more.empty()) body += "," + std::string(more);
  return ParseCompletionRequest("{" + body + "}", {});
}

TEST(CompletionRequestTest, APromptIsTextOrIdsOrAListOfEither) {
  EXPECT_THAT(Prompt(R"("a")")->prompts, testing::ElementsAre(RawPrompt("a")));
  EXPECT_THAT(Prompt(R"(["a","b"])")->prompts,
              testing::ElementsAre(RawPrompt("a"), RawPrompt("b")));
  EXPECT_THAT(Prompt("[1,2]")->prompts, testing::ElementsAre(RawPrompt(Ids{1, 2})));
  EXPECT_THAT(Prompt("[[1,2],[3]]")->prompts,
              testing::ElementsAre(RawPrompt(Ids{1, 2}), RawPrompt(Ids{3})));
  EXPECT_THAT(Prompt(R"([[1],"a"])")->prompts,
              testing::ElementsAre(RawPrompt(Ids{1}), RawPrompt("a")));
}

TEST(CompletionRequestTest, AWrongOrEmptyPromptIsNamed) {
  ExpectRefused(ParseCompletionRequest("{}", {}).status(), "prompt");
  const std::pair<std::string, std::string> wrong[] = {
      {"null", "prompt"},
      {R"("")", "prompt"},
      {"[]", "prompt"},
      {"1", "prompt"},
      {"true", "prompt"},
      {R"({"a":1})", "prompt"},
      {"[[]]", "prompt[0]"},
      {R"([""])", "prompt[0]"},
      {R"(["a",1])", "prompt[1]"},
      {R"([1,"a"])", "prompt[1]"},
      {"[1,-1]", "prompt[1]"},
      {"[1,1.0]", "prompt[1]"},
      {"[null]", "prompt[0]"},
      {"[1,4294967296]", "prompt[1]"},
      {"[[1],[2,-0]]", "prompt[1][1]"},
  };
  for (const auto& [json, param] : wrong) {
    SCOPED_TRACE(json);
    ExpectRefused(Prompt(json).status(), param);
  }
}

TEST(CompletionRequestTest, AtMost64Prompts) {
  std::string many = "[";
  for (int i = 0; i < 64; ++i) many += R"("a",)";
  many.back() = ']';
  EXPECT_EQ(Prompt(many)->prompts.size(), 64u);
  many.back() = ',';
  ExpectRefused(Prompt(many + R"("a"])").status(), "prompt");
}

TEST(CompletionRequestTest, DefaultsAreOpenAIs) {
  const auto request = Prompt(R"("a")");
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(request->options.max_tokens, 16u);
  EXPECT_TRUE(request->add_special_tokens);
  EXPECT_EQ(request->reasoning_format, ReasoningFormat::kNone);
  EXPECT_FALSE(Prompt(R"("a")", R"("add_special_tokens":false)")->add_special_tokens);
  EXPECT_FALSE(Prompt(R"("a")", R"("add_bos_token":false)")->add_special_tokens);
  EXPECT_EQ(Prompt(R"("a")", R"("reasoning_format":"separate")")->reasoning_format,
            ReasoningFormat::kSeparate);
}

// OpenAI's echo with logprobs scores the prompt too; here it is named as what it is not.
TEST(CompletionRequestTest, LogprobsOfAnEchoedPromptAreNamedAsMissing) {
  const auto request = Prompt(R"("a")", R"("echo":true,"logprobs":2)");
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(request->options.output.top_logprobs, 2u);
  EXPECT_THAT(FieldsOf(request->options.warnings), testing::ElementsAre("logprobs"));
  EXPECT_THAT(Prompt(R"("a")", R"("echo":false,"logprobs":2)")->options.warnings,
              testing::IsEmpty());
}

TEST(CompletionRequestTest, WhatBelongsToChatIsUnknownHere) {
  const auto request =
      Prompt(R"("a")", R"("thinking":{},"continue_final_message":true,"top_logprobs":1)");
  ASSERT_TRUE(request.ok());
  EXPECT_THAT(FieldsOf(request->options.warnings),
              testing::UnorderedElementsAre("thinking", "continue_final_message", "top_logprobs"));
}

}  // namespace
}  // namespace behemoth::gateway
