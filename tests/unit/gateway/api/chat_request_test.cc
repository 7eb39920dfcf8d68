#include "gateway/api/chat_request.h"

#include "tests/unit/gateway/api/bodies.h"

namespace behemoth::gateway {
namespace {

constexpr char kUser[] = R"({"role":"user","content":"hi"})";
constexpr char kAssistant[] = R"({"role":"assistant","content":"<think>\nOk so\n"})";

absl::StatusOr<ChatRequest> Messages(std::string_view list, std::string_view more = "",
                                     const ParseOptions& options = {}) {
  std::string body = R"({"messages":)" + std::string(list);
  if (!more.empty()) body += "," + std::string(more);
  return ParseChatRequest(body + "}", options);
}

absl::StatusOr<ChatRequest> WithUser(std::string_view more, const ParseOptions& options = {}) {
  return Messages("[" + std::string(kUser) + "]", more, options);
}

absl::StatusOr<ChatRequest> WithAssistant(std::string_view more) {
  return Messages("[" + std::string(kUser) + "," + kAssistant + "]", more);
}

TEST(ChatRequestTest, TheCardsCallIsReadUnchanged) {
  const auto request = Messages(
      R"([{"role":"system","content":"card"},{"role":"user","content":"hi"},
          {"role":"assistant",
           "content":"<think>\nOk i need to think as a creative writer — so\n"}])",
      R"("model":"tacodevs/Behemoth-T1-123B-GPTQ","continue_final_message":true,
         "add_generation_prompt":false,"temperature":0.6,"max_tokens":2048,
         "stop":["[INST]","</s>"])");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_TRUE(request->prompt.continue_final_message);
  EXPECT_FALSE(request->prompt.add_generation_prompt);
  EXPECT_FALSE(request->prompt.add_special_tokens);
  EXPECT_EQ(request->prompt.messages.back().content,
            "<think>\nOk i need to think as a creative writer — so\n");
  EXPECT_EQ(request->reasoning_format, ReasoningFormat::kNone);
  EXPECT_EQ(request->options.model, "tacodevs/Behemoth-T1-123B-GPTQ");
  EXPECT_EQ(request->options.sampling.temperature, 0.6);
  EXPECT_EQ(request->options.max_tokens, 2048u);
  EXPECT_THAT(request->options.stop.strings, testing::ElementsAre("[INST]", "</s>"));
  EXPECT_THAT(request->options.warnings, testing::IsEmpty());
}

TEST(ChatRequestTest, MessagesAreAListOfAtLeastOne) {
  ExpectRefused(ParseChatRequest("{}", {}).status(), "messages");
  for (const std::string bad : {"null", "[]", "{}", "1", R"("hi")", "true"}) {
    SCOPED_TRACE(bad);
    ExpectRefused(Messages(bad).status(), "messages");
  }
  std::string many = "[";
  for (int i = 0; i < 16384; ++i) many += std::string(kUser) + ",";
  many.back() = ']';
  EXPECT_TRUE(Messages(many).ok());
  many.back() = ',';
  ExpectRefused(Messages(many + kUser + "]").status(), "messages");
}

TEST(ChatRequestTest, AWrongMessageIsNamedByItsPath) {
  const std::pair<std::string, std::string> wrong[] = {
      {"1", "messages[1]"},
      {"null", "messages[1]"},
      {"[]", "messages[1]"},
      {"{}", "messages[1].role"},
      {R"({"role":1,"content":"a"})", "messages[1].role"},
      {R"({"role":"User","content":"a"})", "messages[1].role"},
      {R"({"role":"function","content":"a"})", "messages[1].role"},
      {R"({"role":"user"})", "messages[1].content"},
      {R"({"role":"user","content":null})", "messages[1].content"},
      {R"({"role":"user","content":1})", "messages[1].content"},
      {R"({"role":"user","content":{}})", "messages[1].content"},
      {R"({"role":"user","content":[1]})", "messages[1].content[0]"},
      {R"({"role":"user","content":[{}]})", "messages[1].content[0].type"},
      {R"({"role":"user","content":["a",{"type":"text"}]})", "messages[1].content[1].text"},
      {R"({"role":"user","content":[{"type":"text","text":1}]})", "messages[1].content[0].text"},
      {R"({"role":"user","content":"a","name":1})", "messages[1].name"},
      {R"({"role":"assistant","content":"a","tool_calls":[{}]})",
       "messages[1].tool_calls[0].function"},
      {R"({"role":"assistant","content":"a","function_call":{"name":"f"}})",
       "messages[1].function_call"},
  };
  for (const auto& [message, param] : wrong) {
    SCOPED_TRACE(message);
    ExpectRefused(Messages("[" + std::string(kUser) + "," + message + "]").status(), param);
  }
}

TEST(ChatRequestTest, PartsThatAreNoTextAreRefusedByName) {
  for (const std::string type : {"image_url", "input_image", "input_audio", "file", "video_url"}) {
    const std::string part = R"({"type":")" + type + R"(","url":"http://127.0.0.1/x"})";
    const auto status =
        Messages(R"([{"role":"user","content":[{"type":"text","text":"a"},)" + part + "]}]")
            .status();
    ExpectRefused(status, "messages[0].content[1]");
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("text only"));
  }
}

TEST(ChatRequestTest, TextPartsAreJoinedByLines) {
  const auto request = Messages(
      R"([{"role":"user","content":[{"type":"text","text":"a"},"b",{"type":"text","text":""}]},
          {"role":"user","content":[]},{"role":"user","content":""}])");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->prompt.messages[0].content, "a\nb\n");
  EXPECT_EQ(request->prompt.messages[1].content, "");
  EXPECT_EQ(request->prompt.messages[2].content, "");
}

TEST(ChatRequestTest, AReplySentBackAsAMessageIsTakenAndItsExtrasAreNamed) {
  const auto plain = Messages(
      R"([{"role":"user","content":"a","name":"Lear"},
          {"role":"assistant","content":"b","refusal":null,"annotations":[],"tool_calls":null,
           "tool_calls":[]}])");
  ExpectRefused(plain.status(), "messages[1].tool_calls");  // twice in one object
  const auto reply = Messages(
      R"([{"role":"user","content":"a","name":"Lear"},
          {"role":"assistant","content":"b","refusal":null,"annotations":[],"audio":null,
           "reasoning_content":"thought"},
          {"role":"user","content":[{"type":"text","text":"c","cache_control":{"type":"x"}}]}])");
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->prompt.messages[0].name, "Lear");
  EXPECT_EQ(reply->prompt.messages[1].name, std::nullopt);
  EXPECT_THAT(FieldsOf(reply->options.warnings),
              testing::ElementsAre("messages[1].reasoning_content",
                                   "messages[2].content[0].cache_control"));
}

struct FlagRow {
  std::string flags;
  std::string refused;  // the param, or empty
  bool goes_on = false, generates = false;
};

TEST(ChatRequestTest, AnAssistantMessageAtTheEndIsContinuedUnlessTheRequestSaysNo) {
  const FlagRow rows[] = {
      {R"("echo":false)", "", true, false},
      {R"("continue_final_message":true)", "", true, false},
      {R"("continue_final_message":true,"add_generation_prompt":false)", "", true, false},
      {R"("add_generation_prompt":false)", "", true, false},
      {R"("continue_final_message":false)", "", false, true},
      {R"("add_generation_prompt":true)", "", false, true},
      {R"("continue_final_message":false,"add_generation_prompt":false)", "", false, false},
      {R"("continue_final_message":true,"add_generation_prompt":true)", "continue_final_message"},
  };
  for (const FlagRow& row : rows) {
    SCOPED_TRACE(row.flags);
    const auto request = WithAssistant(row.flags);
    if (!row.refused.empty()) {
      ExpectRefused(request.status(), row.refused);
      continue;
    }
    ASSERT_TRUE(request.ok()) << request.status();
    EXPECT_EQ(request->prompt.continue_final_message, row.goes_on);
    EXPECT_EQ(request->prompt.add_generation_prompt, row.generates);
  }
}

TEST(ChatRequestTest, AfterAUserMessageThereIsNothingToContinue) {
  const auto plain = WithUser("");
  ASSERT_TRUE(plain.ok());
  EXPECT_FALSE(plain->prompt.continue_final_message);
  EXPECT_TRUE(plain->prompt.add_generation_prompt);
  EXPECT_FALSE(WithUser(R"("add_generation_prompt":false)")->prompt.add_generation_prompt);
  EXPECT_TRUE(WithUser(R"("continue_final_message":false)").ok());
  ExpectRefused(WithUser(R"("continue_final_message":true)").status(), "continue_final_message");
}

TEST(ChatRequestTest, ThinkingTakesAPresetOrAPrefillAndABudget) {
  EXPECT_EQ(WithUser("")->thinking, std::nullopt);
  EXPECT_EQ(WithUser(R"("thinking":null)")->thinking, std::nullopt);
  EXPECT_TRUE(WithUser(R"("thinking":{})")->thinking.has_value());
  const auto preset = WithUser(R"("thinking":{"preset":"creative","budget_tokens":1})");
  ASSERT_TRUE(preset.ok()) << preset.status();
  EXPECT_EQ(preset->thinking->preset, "creative");
  EXPECT_EQ(preset->thinking->budget_tokens, 1u);
  EXPECT_EQ(preset->reasoning_format, ReasoningFormat::kSeparate);
  EXPECT_EQ(WithUser(R"("thinking":{"prefill":"Ok, "})")->thinking->prefill, "Ok, ");
}

TEST(ChatRequestTest, WrongThinkingIsNamed) {
  const std::pair<std::string, std::string> wrong[] = {
      {"[]", "thinking"},
      {"true", "thinking"},
      {R"({"preset":1})", "thinking.preset"},
      {R"({"prefill":false})", "thinking.prefill"},
      {R"({"prefill":")" + std::string(65537, 'a') + "\"}", "thinking.prefill"},
      {R"({"preset":"a","prefill":"b"})", "thinking"},
      {R"({"type":"enabled"})", "thinking.type"},
      {R"({"budget_tokens":0})", "thinking.budget_tokens"},
      {R"({"budget_tokens":-1})", "thinking.budget_tokens"},
      {R"({"budget_tokens":1.0})", "thinking.budget_tokens"},
      {R"({"budget_tokens":"1"})", "thinking.budget_tokens"},
      {R"({"budget_tokens":2147483648})", "thinking.budget_tokens"},
      {R"({"budget_tokens":18446744073709551617})", "thinking.budget_tokens"},
  };
  for (const auto& [json, param] : wrong) {
    SCOPED_TRACE(json.substr(0, 60));
    ExpectRefused(WithUser(Member("thinking", json)).status(), param);
  }
  const std::string preset = R"("thinking":{"preset":"creative"})";
  ExpectRefused(WithAssistant(preset).status(), "thinking");
  ExpectRefused(WithUser(preset + R"(,"continue_final_message":false)").status(), "thinking");
  ExpectRefused(WithUser(preset + R"(,"add_generation_prompt":true)").status(), "thinking");
  EXPECT_TRUE(WithUser(preset + R"(,"continue_final_message":true)").ok());
  EXPECT_TRUE(WithAssistant(R"("thinking":{"budget_tokens":5})").ok());
}

TEST(ChatRequestTest, ReasoningIsSeparateWhereAskedForByAnyName) {
  const auto format = [](std::string_view more) { return WithUser(more)->reasoning_format; };
  constexpr auto kNone = ReasoningFormat::kNone, kSeparate = ReasoningFormat::kSeparate;
  EXPECT_EQ(format(""), kNone);
  EXPECT_EQ(format(R"("reasoning_format":"none")"), kNone);
  EXPECT_EQ(format(R"("reasoning_format":"separate")"), kSeparate);
  EXPECT_EQ(format(R"("separate_reasoning":true)"), kSeparate);
  EXPECT_EQ(format(R"("include_reasoning":true)"), kSeparate);
  EXPECT_EQ(format(R"("include_reasoning":false)"), kNone);
  EXPECT_EQ(format(R"("thinking":{})"), kSeparate);
  EXPECT_EQ(format(R"("thinking":{},"reasoning_format":"none")"), kNone);
  for (const std::string bad : {R"("")", R"("deepseek")", R"("NONE")"}) {
    ExpectRefused(WithUser(Member("reasoning_format", bad)).status(), "reasoning_format");
  }
  const auto both = WithUser(R"("reasoning_format":"none","include_reasoning":true)");
  ASSERT_TRUE(both.ok());
  EXPECT_EQ(both->reasoning_format, kNone);
  EXPECT_THAT(FieldsOf(both->options.warnings), testing::ElementsAre("include_reasoning"));
}

TEST(ChatRequestTest, ATemplateOfTheRequestNeedsTheOperatorsTrust) {
  const std::string member = R"("chat_template":"{{ messages }}")";
  ExpectRefused(WithUser(member).status(), "chat_template");
  const auto trusted = WithUser(member, {.trust_request_template = true});
  ASSERT_TRUE(trusted.ok());
  EXPECT_EQ(trusted->prompt.chat_template, "{{ messages }}");
}

TEST(ChatRequestTest, TemplateArgumentsAreAllowListed) {
  EXPECT_EQ(WithUser(R"("chat_template_kwargs":{})")->prompt.template_kwargs_json, "");
  EXPECT_EQ(WithUser(R"("chat_template_kwargs":{"thinking":true})")->prompt.template_kwargs_json,
            R"({"thinking":true})");
  EXPECT_EQ(WithUser(R"("template_vars":{"thinking":1})")->prompt.template_kwargs_json,
            R"({"thinking":1})");
  ExpectRefused(WithUser(R"("chat_template_kwargs":{"tools":[1]})").status(),
                "chat_template_kwargs.tools");
  ExpectRefused(WithUser(R"("template_vars":{"tokenize":1})").status(), "template_vars.tokenize");
  const ParseOptions none = {.allowed_template_kwargs = {}};
  ExpectRefused(WithUser(R"("chat_template_kwargs":{"thinking":true})", none).status(),
                "chat_template_kwargs.thinking");
}

}  // namespace
}  // namespace behemoth::gateway
