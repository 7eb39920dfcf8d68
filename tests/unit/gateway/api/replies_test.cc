// Whole replies, byte by byte; tests/conformance/gateway_openai reads the same with OpenAI's
// client.
#include "gateway/api/replies.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace behemoth::gateway {
namespace {

const ReplyHead kHead = {
    .id = "chatcmpl-1", .created_s = 1700000000, .model = "m", .system_fingerprint = "fp"};
const Usage kUsage = {
    .prompt_tokens = 5, .cached_tokens = 2, .completion_tokens = 3, .reasoning_tokens = 1};
constexpr char kUsageJson[] =
    R"("usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8,)"
    R"("prompt_tokens_details":{"cached_tokens":2},)"
    R"("completion_tokens_details":{"reasoning_tokens":1}})";

TEST(RepliesTest, AChatReplyIsOpenAIs) {
  const ChatChoice choices[] = {
      {.index = 0, .content = "a\n", .stop_reason = {.text = "</s>"}},
      {.index = 1,
       .content = "",
       .reasoning = "t",
       .finish = FinishReason::kLength,
       .token_ids = std::vector<uint32_t>{7, 8}},
  };
  EXPECT_EQ(ChatReplyJson(kHead, choices, {.usage = kUsage}),
            std::string(R"({"id":"chatcmpl-1","object":"chat.completion","created":1700000000,)"
                        R"("model":"m","system_fingerprint":"fp","choices":[)"
                        R"({"index":0,"message":{"role":"assistant","content":"a\n",)"
                        R"("refusal":null},"logprobs":null,"finish_reason":"stop",)"
                        R"("stop_reason":"</s>"},)"
                        R"({"index":1,"message":{"role":"assistant","content":"",)"
                        R"("refusal":null,"reasoning_content":"t"},"logprobs":null,)"
                        R"("finish_reason":"length","stop_reason":null,"token_ids":[7,8]}],)") +
                kUsageJson + "}");
}

TEST(RepliesTest, CallsStandBesideAContentThatIsNullIfEmpty) {
  const std::vector<ToolCallOut> calls = {
      {.index = 0, .id = "aB3dE6gH9", .name = "f", .arguments = R"({"a": "b"})"},
      {.index = 1, .id = "aB3dE6gH0", .name = "g", .arguments = "{}"}};
  const ChatChoice choices[] = {
      {.content = "", .calls = calls, .finish = FinishReason::kToolCalls},
      {.index = 1, .content = "a", .calls = {calls[1]}, .finish = FinishReason::kLength}};
  const auto reply = nlohmann::json::parse(ChatReplyJson(kHead, choices, {.usage = kUsage}));
  EXPECT_EQ(reply["choices"][0]["message"], nlohmann::json::parse(R"({"role":"assistant",
      "content":null,"refusal":null,"tool_calls":[
        {"id":"aB3dE6gH9","type":"function","function":{"name":"f","arguments":"{\"a\": \"b\"}"}},
        {"id":"aB3dE6gH0","type":"function","function":{"name":"g","arguments":"{}"}}]})"));
  EXPECT_EQ(reply["choices"][0]["finish_reason"], "tool_calls");
  EXPECT_EQ(reply["choices"][1]["message"]["content"], "a");
}

TEST(RepliesTest, ACompletionReplyIsOpenAIs) {
  const CompletionChoice choices[] = {{.text = "a",
                                       .finish = FinishReason::kCancelled,
                                       .stop_reason = {.id = 7},
                                       .prompt_token_ids = std::vector<uint32_t>{1}}};
  const Warning warnings[] = {{"x", "unknown field, ignored"}};
  EXPECT_EQ(CompletionReplyJson(kHead, choices, {.usage = kUsage, .warnings = warnings}),
            std::string(R"({"id":"chatcmpl-1","object":"text_completion","created":1700000000,)"
                        R"("model":"m","system_fingerprint":"fp","choices":[)"
                        R"({"index":0,"text":"a","logprobs":null,"finish_reason":"cancelled",)"
                        R"("stop_reason":7,"prompt_token_ids":[1]}],)") +
                kUsageJson + R"(,"warnings":[{"field":"x","message":"unknown field, ignored"}]})");
}

TEST(RepliesTest, TimingsHaveTheSpecsNames) {
  const Timings timings = {.queue_ms = 0.5,
                           .prefill_ms = 1,
                           .decode_ms = 2,
                           .ttft_ms = 1.5,
                           .tokens_per_second = 100,
                           .cached_tokens = 2,
                           .prefill_tokens = 3,
                           .preemptions = 4};
  const auto reply =
      nlohmann::json::parse(ChatReplyJson(kHead, {}, {.usage = kUsage, .timings = timings}));
  EXPECT_EQ(reply["timings"].dump(),
            R"({"cached_tokens":2,"decode_ms":2,"draft_accepted":0,"preemptions":4,)"
            R"("prefill_ms":1,"prefill_tokens":3,"queue_ms":0.5,"tokens_per_second":100,)"
            R"("ttft_ms":1.5})");
}

TEST(RepliesTest, ChatLogprobsCarryTheExactBytesOfHalfACharacter) {
  const ScoredToken half = {.id = 9, .bytes = "\xE2\x82", .logprob = -0.5f};
  const ScoredToken other = {.id = 3, .bytes = "b", .logprob = -2};
  const ChatChoice choices[] = {
      {.logprobs = std::vector<TokenLogprobs>{{.token = half, .rank = 1, .top = {half, other}}}}};
  const auto reply = nlohmann::json::parse(ChatReplyJson(kHead, choices, {}));
  EXPECT_EQ(reply["choices"][0]["logprobs"].dump(),
            "{\"content\":[{\"bytes\":[226,130],\"logprob\":-0.5,"
            "\"token\":\"\xEF\xBF\xBD\xEF\xBF\xBD\",\"top_logprobs\":["
            "{\"bytes\":[226,130],\"logprob\":-0.5,\"token\":\"\xEF\xBF\xBD\xEF\xBF\xBD\"},"
            "{\"bytes\":[98],\"logprob\":-2,\"token\":\"b\"}]}],\"refusal\":null}");
}

TEST(RepliesTest, CompletionLogprobsCountTheTextInCodePoints) {
  const std::vector<TokenLogprobs> logprobs = {
      {.token = {.bytes = "é"}, .top = {{.bytes = "é"}, {.bytes = "x", .logprob = -1}}},
      {.token = {.bytes = "b", .logprob = -3}, .top = {{.bytes = "b"}, {.bytes = "b"}}},
      {.token = {.bytes = "c"}}};
  const CompletionChoice choices[] = {
      {.text = "ébc", .logprobs = logprobs, .logprobs_text_offset = 10}};
  const auto reply = nlohmann::json::parse(CompletionReplyJson(kHead, choices, {}));
  EXPECT_EQ(reply["choices"][0]["logprobs"].dump(),
            R"({"text_offset":[10,11,12],"token_logprobs":[0,-3,0],"tokens":["é","b","c"],)"
            R"("top_logprobs":[{"x":-1,"é":0},{"b":0},{}]})");
}

TEST(RepliesTest, PromptLogprobsAreVllms) {
  ReplyTail tail;
  tail.prompt_logprobs.emplace();
  tail.prompt_logprobs->push_back(std::nullopt);
  tail.prompt_logprobs->push_back(TokenLogprobs{.token = {.id = 4, .bytes = "b", .logprob = -7},
                                                .rank = 12,
                                                .top = {{.id = 9, .bytes = "x", .logprob = -1}}});
  const auto reply = nlohmann::json::parse(ChatReplyJson(kHead, {}, tail));
  EXPECT_EQ(reply["prompt_logprobs"].dump(),
            R"([null,{"4":{"decoded_token":"b","logprob":-7,"rank":12},)"
            R"("9":{"decoded_token":"x","logprob":-1,"rank":1}}])");
}

TEST(RepliesTest, ModelsAreOpenAIsWithVllmsLimit) {
  const ModelEntry models[] = {{.id = "a", .root = "/m", .created_s = 5, .max_model_len = 9},
                               {.id = "b"}};
  EXPECT_EQ(ModelJson(models[0]),
            R"({"id":"a","object":"model","created":5,"owned_by":"behemoth","root":"/m",)"
            R"("parent":null,"max_model_len":9})");
  EXPECT_EQ(ModelListJson(models), R"({"object":"list","data":[)" + ModelJson(models[0]) + "," +
                                       ModelJson(models[1]) + "]}");
  EXPECT_EQ(ModelListJson({}), R"({"object":"list","data":[]})");
}

TEST(RepliesTest, TokenizeAndDetokenizeAreVllms) {
  const uint32_t ids[] = {1, 2};
  EXPECT_EQ(TokenizeReplyJson({.ids = ids, .max_model_len = 9}),
            R"({"count":2,"max_model_len":9,"tokens":[1,2],"token_strs":null})");
  EXPECT_EQ(TokenizeReplyJson({.ids = ids,
                               .max_model_len = 9,
                               .token_bytes = std::vector<std::string_view>{"<s>", "a\""}}),
            R"({"count":2,"max_model_len":9,"tokens":[1,2],"token_strs":["<s>","a\""]})");
  EXPECT_EQ(DetokenizeReplyJson("a", {}), R"({"prompt":"a"})");
}

TEST(RepliesTest, RenderShowsEachIdItsTextAndWhetherItControls) {
  const RenderedToken tokens[] = {{.id = 1, .bytes = "<s>", .control = true},
                                  {.id = 5, .bytes = "\xE2"}};
  EXPECT_EQ(RenderReplyJson("<s>x", tokens, {}),
            "{\"prompt\":\"<s>x\",\"count\":2,\"token_ids\":[1,5],\"tokens\":["
            "{\"id\":1,\"text\":\"<s>\",\"control\":true},"
            "{\"id\":5,\"text\":\"\xEF\xBF\xBD\",\"control\":false}]}");
}

}  // namespace
}  // namespace behemoth::gateway
