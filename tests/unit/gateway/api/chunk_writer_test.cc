#include "gateway/api/chunk_writer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace behemoth::gateway {
namespace {

constexpr auto kChat = ChunkWriter::Kind::kChat;
constexpr auto kCompletion = ChunkWriter::Kind::kCompletion;
const ReplyHead kHead = {.id = "c-1", .created_s = 17, .model = "m\"", .system_fingerprint = "fp"};
constexpr char kChatHead[] =
    R"({"id":"c-1","object":"chat.completion.chunk","created":17,"model":"m\"",)"
    R"("system_fingerprint":"fp","choices":[)";
constexpr char kTextHead[] = R"({"id":"c-1","object":"text_completion","created":17,"model":"m\"",)"
                             R"("system_fingerprint":"fp","choices":[)";

TEST(ChunkWriterTest, AChatStreamIsOpenAIs) {
  const ChunkWriter writer(kChat, kHead, /*include_usage=*/false);
  std::string out;
  writer.Role(0, out);
  EXPECT_EQ(out, std::string(kChatHead) +
                     R"({"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,)"
                     R"("finish_reason":null}]})");
  out.clear();
  writer.Chat(2, {.content = "a\n"}, {}, out);
  EXPECT_EQ(out, std::string(kChatHead) + R"({"index":2,"delta":{"content":"a\n"},"logprobs":null,)"
                                          R"("finish_reason":null}]})");
  out.clear();
  writer.Chat(0, {.content = "a", .reasoning = "t"}, {}, out);
  EXPECT_EQ(out, std::string(kChatHead) +
                     R"({"index":0,"delta":{"reasoning_content":"t","content":"a"},)"
                     R"("logprobs":null,"finish_reason":null}]})");
  out.clear();
  writer.Finish(0, {.reason = FinishReason::kStop, .stop_reason = {.text = "x"}}, {}, {}, out);
  EXPECT_EQ(out, std::string(kChatHead) +
                     R"({"index":0,"delta":{},"logprobs":null,"finish_reason":"stop",)"
                     R"("stop_reason":"x"}]})");
}

TEST(ChunkWriterTest, ACallBeginsWithItsIdAndNameAndGoesOnWithItsArguments) {
  const ChunkWriter writer(kChat, kHead, /*include_usage=*/false);
  std::string out;
  const ToolCallOut begin[] = {{.index = 1, .id = "aB3dE6gH9", .name = "f", .arguments = "{\""}};
  writer.Chat(0, {.content = "a", .calls = begin}, {}, out);
  EXPECT_EQ(out, std::string(kChatHead) +
                     R"({"index":0,"delta":{"content":"a","tool_calls":[{"index":1,)"
                     R"("id":"aB3dE6gH9","type":"function","function":{"name":"f",)"
                     R"("arguments":"{\""}}]},"logprobs":null,"finish_reason":null}]})");
  out.clear();
  const ToolCallOut more[] = {{.index = 1, .arguments = "a"}};
  writer.Chat(0, {.calls = more}, {}, out);
  EXPECT_EQ(out, std::string(kChatHead) +
                     R"({"index":0,"delta":{"tool_calls":[{"index":1,"function":{)"
                     R"("arguments":"a"}}]},"logprobs":null,"finish_reason":null}]})");
}

TEST(ChunkWriterTest, ACompletionStreamIsOpenAIs) {
  const ChunkWriter writer(kCompletion, kHead, /*include_usage=*/false);
  std::string out;
  writer.Completion(1, {.content = "a"}, {}, out);
  EXPECT_EQ(out, std::string(kTextHead) +
                     R"({"index":1,"text":"a","logprobs":null,"finish_reason":null}]})");
  out.clear();
  writer.Finish(1, {.reason = FinishReason::kLength}, {}, {}, out);
  EXPECT_EQ(out, std::string(kTextHead) +
                     R"({"index":1,"text":"","logprobs":null,"finish_reason":"length",)"
                     R"("stop_reason":null}]})");
}

TEST(ChunkWriterTest, UsageIsNullInEveryChunkButTheLastIfItWasAskedFor) {
  const ChunkWriter writer(kChat, kHead, /*include_usage=*/true);
  const auto usage_of = [](const std::string& chunk) {
    return nlohmann::json::parse(chunk).at("usage").dump();
  };
  std::string out;
  writer.Role(0, out);
  EXPECT_EQ(usage_of(out), "null");
  out.clear();
  writer.Finish(0, {}, {}, {}, out);
  EXPECT_EQ(usage_of(out), "null");
  out.clear();
  writer.Chat(0, {.content = "a"}, {.usage = Usage{.prompt_tokens = 1, .completion_tokens = 2}},
              out);
  EXPECT_EQ(nlohmann::json::parse(out)["usage"]["total_tokens"], 3);
  out.clear();
  writer.Closing(Usage{.prompt_tokens = 1}, std::nullopt, out);
  EXPECT_EQ(out, std::string(kChatHead) +
                     R"(],"usage":{"prompt_tokens":1,"completion_tokens":0,"total_tokens":1,)"
                     R"("prompt_tokens_details":{"cached_tokens":0},)"
                     R"("completion_tokens_details":{"reasoning_tokens":0}}})");
}

TEST(ChunkWriterTest, ExtrasRideOnTheTextTheyBelongTo) {
  const TokenLogprobs logprobs[] = {{.token = {.bytes = "a", .logprob = -1}}};
  const uint32_t ids[] = {5, 6};
  std::string out;
  ChunkWriter(kChat, kHead, false)
      .Chat(0, {.content = "a"}, {.logprobs = logprobs, .token_ids = ids}, out);
  const auto chat = nlohmann::json::parse(out)["choices"][0];
  EXPECT_EQ(chat["token_ids"].dump(), "[5,6]");
  EXPECT_EQ(chat["logprobs"]["content"][0]["logprob"], -1);
  out.clear();
  ChunkWriter(kCompletion, kHead, false)
      .Completion(0, {.content = "a"}, {.logprobs = logprobs, .text_offset = 4}, out);
  EXPECT_EQ(nlohmann::json::parse(out)["choices"][0]["logprobs"]["text_offset"].dump(), "[4]");
}

TEST(ChunkWriterTest, WarningsRideOnTheFinish) {
  const Warning warnings[] = {{"x", "why"}};
  std::string out;
  ChunkWriter(kChat, kHead, false).Finish(0, {}, {}, warnings, out);
  EXPECT_EQ(nlohmann::json::parse(out)["warnings"].dump(), R"([{"field":"x","message":"why"}])");
}

TEST(ChunkWriterTest, AChunkIsOneLineWhateverTheText) {
  std::string text, out;
  for (int byte = 0; byte < 256; ++byte) text.push_back(static_cast<char>(byte));
  ChunkWriter(kChat, kHead, false).Chat(0, {.content = text, .reasoning = text}, {}, out);
  EXPECT_EQ(out.find_first_of("\r\n"), std::string::npos);
  EXPECT_NO_THROW(nlohmann::json::parse(out));
}

}  // namespace
}  // namespace behemoth::gateway
