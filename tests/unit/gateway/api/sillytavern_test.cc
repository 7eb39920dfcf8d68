// What SillyTavern 1.12.12 sends to each of its text backends and to a custom chat completion
// source, field by field as spec model.md 4.2 and 4.3 list them, with its default settings: served,
// and what has no effect here is named.
#include "tests/unit/gateway/api/bodies.h"

namespace behemoth::gateway {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;
using enum SamplerStage;

// What all unfiltered backends get.
const std::string kUnfiltered = R"("prompt":"[SYSTEM_PROMPT] card[/SYSTEM_PROMPT][INST] hi[/INST]",
"model":"m","max_new_tokens":350,"max_tokens":350,"logprobs":10,"temperature":0.7,"top_p":0.95,
"typical_p":1,"typical":1,"sampler_seed":-1,"min_p":0.05,"repetition_penalty":1.05,
"frequency_penalty":0,"presence_penalty":0,"top_k":0,"skew":0,"min_tokens":0,"add_bos_token":true,
"smoothing_factor":0.2,"smoothing_curve":1,"dry_allowed_length":2,"dry_multiplier":0.8,
"dry_base":1.75,"dry_sequence_breakers":"[\"\\n\", \":\", \"\\\"\", \"*\"]","dry_penalty_last_n":0,
"max_tokens_second":0,"stopping_strings":["\nUser:","</s>","[INST] "],
"stop":["\nUser:","</s>","[INST] "],"truncation_length":8192,"ban_eos_token":false,
"skip_special_tokens":true,"top_a":0,"tfs":1,"mirostat_mode":0,"mirostat_tau":5,"mirostat_eta":0.1,
"custom_token_bans":"","banned_strings":["shivers down"],"api_type":"x",
"api_server":"http://127.0.0.1:5000/","xtc_threshold":0.1,"xtc_probability":0.5,"nsigma":0,
"include_reasoning":true,"stream":true)";

// What tabby and its like get beside it.
const std::string kOthers = R"(,"rep_pen":1.05,"rep_pen_range":0,"repetition_decay":0,
"repetition_penalty_range":0,"temperature_last":true,"speculative_ngram":false,"seed":-1,
"guidance_scale":1,"negative_prompt":"","grammar_string":"","repeat_penalty":1.05,"tfs_z":1,
"repeat_last_n":0,"n_predict":350,"num_predict":350,"num_ctx":8192,"mirostat":0,"ignore_eos":false,
"n_probs":10,"rep_pen_slope":1,"n":1)";

CompletionRequest Completion(const std::string& members) {
  auto request = ParseCompletionRequest("{" + members + "}", {});
  EXPECT_TRUE(request.ok()) << request.status();
  return request.ok() ? *std::move(request) : CompletionRequest{};
}

void ExpectItsSliders(const CompletionRequest& request) {
  const SamplingOptions& sampling = request.options.sampling;
  EXPECT_EQ(sampling.temperature, 0.7);
  EXPECT_EQ(sampling.min_p, 0.05);
  EXPECT_EQ(sampling.repetition_penalty, 1.05);
  EXPECT_EQ(sampling.xtc_probability, 0.5);
  EXPECT_EQ(sampling.smoothing_factor, 0.2);
  EXPECT_EQ(sampling.seed, std::nullopt);
  ASSERT_TRUE(sampling.dry);
  EXPECT_EQ(sampling.dry->multiplier, 0.8);
  EXPECT_THAT(sampling.dry->breakers, ElementsAre("\n", ":", "\"", "*"));
  EXPECT_THAT(sampling.banned_strings, ElementsAre("shivers down"));
  EXPECT_FALSE(sampling.dynamic_temperature);
  EXPECT_EQ(request.options.max_tokens, 350u);
  EXPECT_EQ(request.options.output.top_logprobs, 10u);
  EXPECT_TRUE(request.options.output.stream);
  EXPECT_TRUE(request.add_special_tokens);
  EXPECT_EQ(request.reasoning_format, ReasoningFormat::kSeparate);
  EXPECT_THAT(request.options.stop.strings, ElementsAre("\nUser:", "</s>", "[INST] "));
}

TEST(SillyTavernTest, TextGenerationWebui) {
  const auto request =
      Completion(kUnfiltered + kOthers +
                 R"(,"sampler_priority":["repetition_penalty","dry","temperature","top_p","xtc"])");
  ExpectItsSliders(request);
  EXPECT_THAT(request.options.sampling.order, ElementsAre(kTemperature, kTopP, kXtc));
  // temperature_last is on by default and contradicts the order that is sent with it.
  EXPECT_THAT(FieldsOf(request.options.warnings),
              UnorderedElementsAre("truncation_length", "num_ctx", "temperature_last"));
}

TEST(SillyTavernTest, Tabby) {
  const auto request = Completion(kUnfiltered + kOthers + R"(,"json_schema":null)");
  ExpectItsSliders(request);
  EXPECT_EQ(request.options.sampling.order.back(), kTemperature);
  EXPECT_THAT(FieldsOf(request.options.warnings),
              UnorderedElementsAre("truncation_length", "num_ctx"));
}

TEST(SillyTavernTest, TabbyWithDynamicTemperature) {
  const auto request = Completion(
      kUnfiltered + kOthers +
      R"(,"dynamic_temperature":true,"dynatemp_low":0.5,"dynatemp_high":1.5,"dynatemp_range":0.5,
"dynatemp_exponent":1)");
  ASSERT_TRUE(request.options.sampling.dynamic_temperature);
  EXPECT_EQ(request.options.sampling.dynamic_temperature->high, 1.5);
  EXPECT_THAT(FieldsOf(request.options.warnings),
              UnorderedElementsAre("truncation_length", "num_ctx"));
}

TEST(SillyTavernTest, LlamaCppAndKoboldCpp) {
  const auto llama = Completion(kUnfiltered + kOthers +
                                R"(,"cache_prompt":true,"samplers":["dry","top_k","typ_p","top_p",
"min_p","xtc","temperature"],"grammar":"")");
  ExpectItsSliders(llama);
  EXPECT_THAT(llama.options.sampling.order,
              ElementsAre(kTopK, kTypicalP, kTopP, kMinP, kXtc, kTemperature));
  const auto kobold = Completion(kUnfiltered + kOthers + R"(,"sampler_order":[6,0,1,3,4,2,5])");
  ExpectItsSliders(kobold);
  EXPECT_EQ(kobold.options.sampling.order.back(), kTemperature);
  EXPECT_THAT(FieldsOf(kobold.options.warnings),
              UnorderedElementsAre("truncation_length", "num_ctx"));
}

TEST(SillyTavernTest, Aphrodite) {
  std::string body = kUnfiltered;
  const std::string bans = R"("custom_token_bans":"")";
  body.replace(body.find(bans), bans.size(), R"("custom_token_bans":[7])");
  const auto request =
      Completion(body + R"(,"n":1,"temperature_last":true,"eta_cutoff":0,"epsilon_cutoff":0,
"early_stopping":false,"include_stop_str_in_output":false,"dynatemp_min":0,"dynatemp_max":0,
"dynatemp_exponent":1,"no_repeat_ngram_size":0,"sampler_priority":["dry","penalties",
"no_repeat_ngram","temperature","top_nsigma","top_p_top_k","top_a","min_p","tfs","eta_cutoff",
"epsilon_cutoff","typical_p","quadratic","xtc"])");
  ExpectItsSliders(request);
  EXPECT_THAT(request.options.sampling.banned_ids, ElementsAre(7));
  EXPECT_THAT(FieldsOf(request.options.warnings),
              UnorderedElementsAre("truncation_length", "temperature_last"));
}

TEST(SillyTavernTest, Vllm) {
  const auto request = Completion(
      R"("model":"m","prompt":"hi","best_of":1,"frequency_penalty":0,"logit_bias":{"13":-100},
"logprobs":5,"max_tokens":350,"n":1,"presence_penalty":0,"seed":-1,"stop":["\nUser:"],
"stream":true,"temperature":0.7,"top_p":0.95,"top_k":-1,"min_p":0.05,"repetition_penalty":1.05,
"length_penalty":1,"early_stopping":false,"ignore_eos":false,"min_tokens":0,
"skip_special_tokens":true,"spaces_between_special_tokens":true,
"include_stop_str_in_output":false)");
  EXPECT_EQ(request.options.sampling.temperature, 0.7);
  EXPECT_THAT(request.options.warnings, IsEmpty());
}

TEST(SillyTavernTest, GenericOpenAi) {
  const auto request = Completion(
      R"("model":"m","prompt":"hi","stream":true,"temperature":0.7,"top_p":1,"frequency_penalty":0,
"presence_penalty":0,"stop":["\nUser:","</s>"],"seed":-1,"logit_bias":{},"logprobs":10,
"max_tokens":350,"n":1)");
  EXPECT_THAT(request.options.warnings, IsEmpty());
}

TEST(SillyTavernTest, CustomChatCompletions) {
  const auto request = ParseChatRequest(
      R"({"messages":[{"role":"system","content":"card"},{"role":"user","content":"hi","name":"U"},
{"role":"assistant","content":"<think>\nOk"}],"model":"m","temperature":0.7,"max_tokens":350,
"stream":true,"presence_penalty":0,"frequency_penalty":0,"top_p":1,"stop":["\nUser:"],
"logit_bias":{"13":-1},"seed":7,"logprobs":true,"top_logprobs":5,"min_p":0.05,
"repetition_penalty":1.05,"continue_final_message":true,"add_generation_prompt":false})",
      {});
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_TRUE(request->prompt.continue_final_message);
  EXPECT_THAT(request->options.warnings, IsEmpty());
  // For model names that it takes for OpenAI's own.
  const auto named = Chat(R"("reasoning_effort":"high","verbosity":"low")");
  ASSERT_TRUE(named.ok()) << named.status();
  EXPECT_THAT(FieldsOf(named->warnings), UnorderedElementsAre("reasoning_effort", "verbosity"));
}

}  // namespace
}  // namespace behemoth::gateway
