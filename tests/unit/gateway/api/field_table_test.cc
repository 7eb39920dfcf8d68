// The table against what spec api.md section 3 and the servers before us call their fields.
#include <algorithm>
#include <set>

#include "tests/unit/gateway/api/bodies.h"

namespace behemoth::gateway {
namespace {

std::vector<std::string> NamesWith(Support support) {
  std::set<std::string> names;
  for (const FieldSpec& field : FieldTable()) {
    if (field.support == support) names.emplace(field.name);
  }
  return {names.begin(), names.end()};
}

// clang-format off
constexpr std::string_view kSpecNames[] = {
    "messages", "continue_final_message", "add_generation_prompt", "echo", "chat_template_kwargs",
    "chat_template", "add_special_tokens", "truncate_prompt_tokens", "documents", "tools",
    "thinking", "reasoning_format", "separate_reasoning", "include_reasoning",
    "max_tokens", "max_completion_tokens", "max_new_tokens", "n_predict", "min_tokens", "stop",
    "stop_token_ids", "ignore_eos", "include_stop_str_in_output", "skip_special_tokens",
    "spaces_between_special_tokens", "stop_scope",
    "temperature", "top_p", "top_k", "min_p", "typical_p", "top_n_sigma", "nsigma",
    "repetition_penalty", "rep_pen", "presence_penalty", "frequency_penalty", "dry_multiplier",
    "dry_base", "dry_allowed_length", "dry_penalty_last_n", "dry_range", "dry_sequence_breakers",
    "xtc_probability", "xtc_threshold", "dynatemp_low", "dynatemp_high", "dynatemp_exponent",
    "dynamic_temperature", "smoothing_factor", "smoothing_curve", "logit_bias", "bad_words",
    "banned_strings", "allowed_token_ids", "custom_token_bans", "seed", "sampler_seed", "n",
    "best_of", "temperature_last", "sampler_order", "tfs", "top_a", "mirostat_mode",
    "mirostat_tau", "mirostat_eta", "eta_cutoff", "epsilon_cutoff", "guidance_scale",
    "use_beam_search", "length_penalty", "user", "stream", "stream_options", "logprobs",
    "top_logprobs", "prompt_logprobs", "return_token_ids", "return_timings", "response_format",
    "request_id", "cache_salt", "priority", "metadata", "store"};

// vllm/entrypoints/openai/protocol.py (commit 0052bed), ChatCompletionRequest, less what is about
// images, connectors and plug-ins: those are unknown here and named in `warnings`.
constexpr std::string_view kVllmChatNames[] = {
    "messages", "model", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs",
    "max_tokens", "max_completion_tokens", "n", "presence_penalty", "response_format", "seed",
    "stop", "stream", "stream_options", "temperature", "top_p", "tools", "tool_choice",
    "reasoning_effort", "include_reasoning", "parallel_tool_calls", "user", "best_of",
    "use_beam_search", "top_k", "min_p", "repetition_penalty", "length_penalty", "stop_token_ids",
    "include_stop_str_in_output", "ignore_eos", "min_tokens", "skip_special_tokens",
    "spaces_between_special_tokens", "truncate_prompt_tokens", "prompt_logprobs",
    "allowed_token_ids", "bad_words", "echo", "add_generation_prompt", "continue_final_message",
    "add_special_tokens", "documents", "chat_template", "chat_template_kwargs", "guided_json",
    "guided_regex", "guided_choice", "guided_grammar", "structural_tag",
    "guided_decoding_backend", "guided_whitespace_pattern", "priority", "request_id",
    "logits_processors", "return_tokens_as_token_ids", "cache_salt"};

// What the later API issue brings (spec api.md sections 3 and 6): never silently accepted.
constexpr std::string_view kLater[] = {
    "documents", "functions", "suffix", "prompt_embeds", "negative_prompt", "function_call",
    "no_repeat_ngram_size", "guided_whitespace_pattern", "structural_tag",
    "logits_processors", "return_tokens_as_token_ids", "modalities", "audio", "prediction",
    "web_search_options"};
// clang-format on

// A value that would do something, by the field's kind.
std::string ActiveValue(const FieldSpec& field) {
  switch (field.kind) {
    case FieldKind::kBool:
      return "true";
    case FieldKind::kInteger:
      return "2";
    case FieldKind::kNumber:
      return "0.5";
    case FieldKind::kString:
      return R"("x")";
    case FieldKind::kObject:
      return R"({"a":1})";
    default:
      return R"(["x"])";
  }
}

TEST(FieldTableTest, HasEveryFieldOfTheSpecAndOfVllm) {
  for (const auto name : kSpecNames) EXPECT_NE(FindField(name, kChatRoute), nullptr) << name;
  for (const auto name : kVllmChatNames) EXPECT_NE(FindField(name, kChatRoute), nullptr) << name;
}

TEST(FieldTableTest, NamesAreUniqueOnEachRouteAndAliasesPointToAFieldOfTheSameKind) {
  std::set<std::pair<std::string_view, int>> seen;
  for (const FieldSpec& field : FieldTable()) {
    for (const Endpoints route : {kChatRoute, kCompletionRoute, kTokenizeRoute, kDetokenizeRoute}) {
      if ((field.routes & route) == 0) continue;
      EXPECT_TRUE(seen.emplace(field.name, route).second) << field.name;
      if (field.alias_of.empty()) continue;
      const FieldSpec* own = FindField(field.alias_of, route);
      ASSERT_NE(own, nullptr) << field.name;
      EXPECT_TRUE(own->alias_of.empty()) << field.name;
      EXPECT_TRUE(own->kind == field.kind || own->kind == FieldKind::kAny) << field.name;
    }
  }
}

TEST(FieldTableTest, WhatComesLaterIsRefusedAndSaysSo) {
  std::vector<std::string_view> later(std::begin(kLater), std::end(kLater));
  later.insert(later.end(), {"tools", "tool_choice"});  // in completions
  EXPECT_THAT(NamesWith(Support::kNotYet), testing::UnorderedElementsAreArray(later));
  for (const auto name : kLater) {
    const FieldSpec& field = *FindField(name, kChatRoute);
    for (const Endpoints route : {kChatRoute, kCompletionRoute}) {
      SCOPED_TRACE(name);
      const auto status = Parse(route, BodyOf(route, Member(name, ActiveValue(field))));
      ExpectRefused(status, name);
      EXPECT_THAT(
          std::string(status.message()),
          testing::HasSubstr(field.use_instead.empty() ? "not supported yet" : field.use_instead));
    }
  }
}

TEST(FieldTableTest, NeutralValuesAreAcceptedWithoutAWord) {
  for (const std::string members : {R"("typical_p":1)",
                                    R"("typical_p":1.0)",
                                    R"("typical":1)",
                                    R"("top_n_sigma":0)",
                                    R"("nsigma":-1)",
                                    R"("dry_multiplier":0)",
                                    R"("xtc_probability":0.0)",
                                    R"("dynatemp_range":0)",
                                    R"("dynatemp_max":0)",
                                    R"("smoothing_factor":0)",
                                    R"("tools":[])",
                                    R"("tools":null)",
                                    R"("tool_choice":"none")",
                                    R"("tool_choice":"auto")",
                                    R"("bad_words":[])",
                                    R"("banned_strings":"")",
                                    R"("grammar":"")",
                                    R"("json_schema":{})",
                                    R"("temperature_last":false)",
                                    R"("dynamic_temperature":false)",
                                    R"("suffix":"")",
                                    R"("modalities":["text"])",
                                    R"("sampler_order":[])",
                                    R"("no_repeat_ngram_size":0)"}) {
    for (const Endpoints route : {kChatRoute, kCompletionRoute}) {
      const auto options = ParseOptionsOf(route, members);
      ASSERT_TRUE(options.ok()) << members << ": " << options.status();
      EXPECT_THAT(options->warnings, testing::IsEmpty()) << members;
    }
  }
}

TEST(FieldTableTest, WhatWillNotComeIsNamedInWarningsAndStrictlyRefused) {
  for (const std::string& name : NamesWith(Support::kWarned)) {
    const FieldSpec& field = *FindField(name, kChatRoute);
    const std::string members = Member(name, ActiveValue(field));
    for (const Endpoints route : {kChatRoute, kCompletionRoute}) {
      SCOPED_TRACE(name);
      const auto options = ParseOptionsOf(route, members);
      ASSERT_TRUE(options.ok()) << options.status();
      EXPECT_THAT(FieldsOf(options->warnings), testing::ElementsAre(name));
      ExpectRefused(ParseOptionsOf(route, members, {.strict = true}).status(), name);
    }
  }
}

TEST(FieldTableTest, WhatWillNotComeIsSilentAtItsNeutralValue) {
  for (const std::string members :
       {R"("tfs":1)", R"("tfs_z":1.0)", R"("top_a":0)", R"("mirostat_mode":0)", R"("mirostat":0)",
        R"("mirostat_tau":5,"mirostat_eta":0.1)", R"("eta_cutoff":0)", R"("epsilon_cutoff":0)",
        R"("guidance_scale":1)", R"("use_beam_search":false)", R"("length_penalty":1.0)",
        R"("early_stopping":false)", R"("rep_pen_range":0)", R"("repeat_last_n":-1)",
        R"("skew":0)"}) {
    const auto options = Chat(members);
    ASSERT_TRUE(options.ok()) << members << ": " << options.status();
    EXPECT_THAT(options->warnings, testing::IsEmpty()) << members;
  }
}

// A field without effect must be one that is idle by itself: the second half of a sampler that is
// refused, or what the client says to others than the model.
TEST(FieldTableTest, OnlyIdleFieldsHaveNoEffect) {
  EXPECT_THAT(
      NamesWith(Support::kNoEffect),
      testing::UnorderedElementsAre("mirostat_tau", "mirostat_eta", "spaces_between_special_tokens",
                                    "parallel_tool_calls", "metadata", "store", "service_tier",
                                    "safety_identifier", "api_type", "api_server", "cache_prompt",
                                    "prompt_cache_key", "prompt_cache_retention"));
}

TEST(FieldTableTest, UnknownFieldsAreNamedInWarnings) {
  for (const Endpoints route : {kChatRoute, kCompletionRoute}) {
    const auto options = ParseOptionsOf(route, R"("frobnicate":1,"Temperature":0.5,"":2)");
    ASSERT_TRUE(options.ok()) << options.status();
    EXPECT_THAT(FieldsOf(options->warnings),
                testing::UnorderedElementsAre("frobnicate", "Temperature", ""));
  }
  const auto tokenize = ParseTokenizeRequest(BodyOf(kTokenizeRoute, R"("temperature":1)"), {});
  ASSERT_TRUE(tokenize.ok());
  EXPECT_THAT(FieldsOf(tokenize->warnings), testing::ElementsAre("temperature"));
  const auto detokenize = ParseDetokenizeRequest(BodyOf(kDetokenizeRoute, R"("prompt":"a")"), {});
  ASSERT_TRUE(detokenize.ok());
  EXPECT_THAT(FieldsOf(detokenize->warnings), testing::ElementsAre("prompt"));
}

TEST(FieldTableTest, UnknownFieldsAreStrictlyRefused) {
  const ParseOptions strict = {.strict = true};
  for (const Endpoints route : {kChatRoute, kCompletionRoute, kTokenizeRoute, kDetokenizeRoute}) {
    ExpectRefused(Parse(route, BodyOf(route, R"("frobnicate":1)"), strict), "frobnicate");
    EXPECT_TRUE(Parse(route, BodyOf(route, ""), strict).ok());
  }
}

// A body of names must not become a reply of names.
TEST(FieldTableTest, WarningsAreBounded) {
  std::string members = Member(std::string(100000, 'x'), "1");
  for (int i = 0; i < 1000; ++i) members.append(",").append(Member(std::to_string(i), "1"));
  const auto options = Chat(members);
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->warnings.size(), 32u);
  for (const Warning& warning : options->warnings) EXPECT_LE(warning.field.size(), 96u);
}

TEST(FieldTableTest, AnAliasThatContradictsItsFieldIsNamedAndTheFieldCounts) {
  for (const std::string members :
       {R"("max_tokens":5,"max_new_tokens":7)", R"("max_new_tokens":7,"max_tokens":5)",
        R"("n_predict":-1,"max_tokens":5)"}) {
    const auto options = Chat(members);
    ASSERT_TRUE(options.ok()) << options.status();
    EXPECT_EQ(options->max_tokens, 5u) << members;
    EXPECT_EQ(options->warnings.size(), 1u) << members;
  }
  const auto same = Chat(R"("max_tokens":5,"max_completion_tokens":5,"n_predict":5)");
  ASSERT_TRUE(same.ok());
  EXPECT_THAT(same->warnings, testing::IsEmpty());
}

TEST(FieldTableTest, AnAliasOutOfRangeIsNamedAsTheClientWroteIt) {
  ExpectRefused(Chat(R"("rep_pen":0)").status(), "rep_pen");
  ExpectRefused(Chat(R"("n_predict":0)").status(), "n_predict");
  ExpectRefused(Chat(R"("sampler_seed":9223372036854775808)").status(), "sampler_seed");
}

// A body that does not hold a field can never be refused for that field's value.
TEST(FieldTableTest, ABodyWithoutAFieldIsNeverRefusedForIt) {
  for (const Endpoints route : {kChatRoute, kCompletionRoute}) {
    for (const std::string_view wrong : {R"("top_p":0)", R"("best_of":17)", R"("max_tokens":17,)",
                                         R"("max_tokens":17 "a":1)", R"("seed":17,"seed":17)"}) {
      const auto status = Parse(route, BodyOf(route, wrong));
      ASSERT_FALSE(status.ok()) << wrong;
      const std::string param = ToApiError(status).param.value_or("");
      EXPECT_NE(BodyOf(route, wrong).find('"' + param + '"'), std::string::npos)
          << wrong << " blamed " << param;
    }
  }
}

}  // namespace
}  // namespace behemoth::gateway
