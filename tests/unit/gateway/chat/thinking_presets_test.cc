#include "gateway/chat/thinking_presets.h"

#include <gtest/gtest.h>

#include <string>

#include "gateway/api/api_error.h"

namespace behemoth::gateway {
namespace {

ChatRequest Request(ThinkingOptions thinking) {
  ChatRequest request;
  request.prompt.messages.push_back({.role = "user", .content = "Who art thou?"});
  request.thinking = std::move(thinking);
  return request;
}

std::string ParamOf(const absl::Status& status) { return ToApiError(status).param.value_or(""); }

TEST(ThinkingPresetsTest, ShippedOnesAreTheModelCards) {
  const ThinkingPresets presets;
  ASSERT_EQ(presets.all().size(), 3u);
  EXPECT_EQ(presets.all()[1].name, "creative");
  // As UTF-8 bytes: the em dash is U+2014, and no space ends the phrase.
  EXPECT_EQ(presets.all()[1].text,
            "Ok i need to think as a creative writer \xE2\x80\x94 what twist would surprise here? "
            "Let me find an engaging new direction nobody saw coming, so");
  for (const ThinkingPreset& preset : presets.all()) {
    EXPECT_TRUE(preset.text.ends_with(", so")) << preset.name;
  }
}

TEST(ThinkingPresetsTest, APresetBecomesAPrefillThatIsContinued) {
  ChatRequest request = Request({.preset = "unhinged"});
  request.prompt.add_generation_prompt = true;
  ASSERT_TRUE(ThinkingPresets().Apply(request).ok());
  ASSERT_EQ(request.prompt.messages.size(), 2u);
  EXPECT_EQ(request.prompt.messages[1].role, "assistant");
  EXPECT_EQ(
      request.prompt.messages[1].content,
      "<think>\nOk i need to think as an unhinged author \u2014 raw, explicit, intense, fully "
      "in character with no holding back, so\n");
  EXPECT_TRUE(request.prompt.continue_final_message);
  EXPECT_FALSE(request.prompt.add_generation_prompt);
}

TEST(ThinkingPresetsTest, APhraseOfTheRequestIsWrappedAsAPresetIs) {
  ChatRequest request = Request({.prefill = "Hm."});
  ASSERT_TRUE(ThinkingPresets().Apply(request).ok());
  EXPECT_EQ(request.prompt.messages.back().content, "<think>\nHm.\n");
}

TEST(ThinkingPresetsTest, ABudgetAloneChangesNoMessage) {
  ChatRequest request = Request({.budget_tokens = 16});
  ASSERT_TRUE(ThinkingPresets().Apply(request).ok());
  EXPECT_EQ(request.prompt.messages.size(), 1u);
  EXPECT_FALSE(request.prompt.continue_final_message);
}

TEST(ThinkingPresetsTest, NoThinkingChangesNothing) {
  ChatRequest request = Request({});
  request.thinking.reset();
  ASSERT_TRUE(ThinkingPresets().Apply(request).ok());
  EXPECT_EQ(request.prompt.messages.size(), 1u);
}

TEST(ThinkingPresetsTest, AnUnknownNameIsRefusedWithTheList) {
  ChatRequest request = Request({.preset = "lazy"});
  const absl::Status status = ThinkingPresets().Apply(request);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ParamOf(status), "thinking.preset");
  EXPECT_NE(status.message().find("analytical, creative, unhinged"), std::string::npos) << status;
}

TEST(ThinkingPresetsTest, APrefillOfTheClientsIsNotFollowedByAnother) {
  ChatRequest request = Request({.preset = "creative"});
  request.prompt.messages.push_back({.role = "assistant", .content = "<think>\n"});
  const absl::Status status = ThinkingPresets().Apply(request);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ParamOf(status), "thinking");
  EXPECT_EQ(request.prompt.messages.size(), 2u);
}

TEST(ThinkingPresetsTest, AFileAddsAndReplaces) {
  for (const char* json :
       {R"({"presets": [{"name": "mine", "text": "A"}, {"name": "creative", "text": "B"}]})",
        R"({"mine": "A", "creative": "B"})"}) {
    const auto presets = ThinkingPresets::FromJson(json);
    ASSERT_TRUE(presets.ok()) << presets.status();
    ASSERT_EQ(presets->all().size(), 4u);
    EXPECT_EQ(presets->all()[1].text, "B");
    EXPECT_EQ(presets->all()[3].name, "mine");
  }
}

TEST(ThinkingPresetsTest, ABadFileNamesPositionOrField) {
  const std::pair<const char*, const char*> cases[] = {
      {"{", "byte"},
      {"[]", "object"},
      {R"({"mine": 1})", "mine.text"},
      {R"({"": "a"})", "name"},
      {R"({"mine": ""})", "mine.text"},
      {R"({"mine": "a", "mine": "b"})", "twice"},
      {R"({"presets": [1]})", "presets[0]"},
      {R"({"presets": [{"name": "a", "text": "b"}, {"name": "c"}]})", "presets[1].text"},
      {R"({"presets": [{"text": "b"}]})", "presets[0].name"},
  };
  for (const auto& [json, named] : cases) {
    const auto presets = ThinkingPresets::FromJson(json);
    EXPECT_EQ(presets.status().code(), absl::StatusCode::kInvalidArgument) << json;
    EXPECT_NE(presets.status().ToString().find(named), std::string::npos)
        << json << ": " << presets.status();
  }
}

TEST(ThinkingPresetsTest, TheListIsJson) {
  const auto presets = ThinkingPresets::FromJson(R"({"quote": "say \"so\"\n"})");
  ASSERT_TRUE(presets.ok());
  const std::string json = presets->ToJson();
  EXPECT_TRUE(json.starts_with("{")) << json;
  EXPECT_NE(json.find(R"("object":"list")"), std::string::npos);
  EXPECT_NE(json.find(R"({"name":"quote","text":"say \"so\"\n"})"), std::string::npos) << json;
}

}  // namespace
}  // namespace behemoth::gateway
