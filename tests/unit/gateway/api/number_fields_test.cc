// Every numeric field of spec api.md section 3 at min - 1, min, max, max + 1, null, absent, of the
// wrong type, and past what a number can hold (operations.md 6, items 10 and 17).
#include <functional>

#include "tests/unit/gateway/api/bodies.h"

namespace behemoth::gateway {
namespace {

using Read = std::function<std::optional<double>(const GenerationOptions&)>;

struct NumberField {
  std::string name;
  bool integer;
  std::vector<std::string> good;  // the smallest first, the largest last
  std::vector<std::string> bad;   // beside what no number field takes
  std::optional<double> absent;   // what is read when it is absent or null
  Read read;
  uint8_t routes = kGenerateRoutes;
};

template <typename T>
std::optional<double> AsDouble(const std::optional<T>& value) {
  return value ? std::optional(static_cast<double>(*value)) : std::nullopt;
}

// clang-format off
const std::vector<NumberField>& Fields() {
  using G = GenerationOptions;
  static const std::vector<NumberField> fields = {
      {"temperature", false, {"0", "-0", "-0.0", "1", "2.5", "1e6"}, {"-1", "-1e-9", "1000001"}, {},
       [](const G& o) { return o.sampling.temperature; }},
      {"top_p", false, {"1e-6", "0.5", "1", "1.0"},
       {"0", "-0.0", "-0.1", "1.0000001", "2", "1e-60"}, {},
       [](const G& o) { return o.sampling.top_p; }},
      {"top_k", true, {"-1", "0", "1", "2147483647"}, {"-2", "2147483648"}, {},
       [](const G& o) { return AsDouble(o.sampling.top_k); }},
      {"min_p", false, {"0", "0.05", "1"}, {"-1", "-0.01", "1.01", "2"}, {},
       [](const G& o) { return o.sampling.min_p; }},
      {"repetition_penalty", false, {"1e-3", "1", "1e6"}, {"0", "-1", "1000001", "1e-60"}, {},
       [](const G& o) { return o.sampling.repetition_penalty; }},
      {"rep_pen", false, {"1e-3", "1.1"}, {"0", "-1"}, {},
       [](const G& o) { return o.sampling.repetition_penalty; }},
      {"repeat_penalty", false, {"1e-3", "1.1"}, {"0", "-1"}, {},
       [](const G& o) { return o.sampling.repetition_penalty; }},
      {"presence_penalty", false, {"-2", "0", "2"}, {"-3", "-2.01", "2.01", "3"}, {},
       [](const G& o) { return o.sampling.presence_penalty; }},
      {"frequency_penalty", false, {"-2", "0", "2"}, {"-3", "-2.01", "2.01", "3"}, {},
       [](const G& o) { return o.sampling.frequency_penalty; }},
      {"typical_p", false, {"1e-6", "0.5", "1"}, {"0", "-0.1", "1.01", "1e-60"}, {},
       [](const G& o) { return o.sampling.typical_p; }},
      {"typical", false, {"1e-6", "1"}, {"0", "1.01"}, {},
       [](const G& o) { return o.sampling.typical_p; }},
      {"top_n_sigma", false, {"0", "1.5", "1e6"}, {"-1.5", "1000001"}, {},
       [](const G& o) { return o.sampling.top_n_sigma; }},
      {"nsigma", false, {"0", "1.5"}, {"-1.5", "1000001"}, {},
       [](const G& o) { return o.sampling.top_n_sigma; }},
      {"xtc_probability", false, {"0", "0.5", "1"}, {"-0.1", "1.01"}, {},
       [](const G& o) { return o.sampling.xtc_probability; }},
      {"xtc_threshold", false, {"0", "0.1", "1"}, {"-0.1", "1.01"}, {},
       [](const G& o) { return o.sampling.xtc_threshold; }},
      {"smoothing_factor", false, {"0", "0.3", "1e6"}, {"-0.1", "1000001"}, {},
       [](const G& o) { return o.sampling.smoothing_factor; }},
      {"smoothing_curve", false, {"1e-3", "1", "1e6"}, {"0", "-1", "1e-60"}, {},
       [](const G& o) { return o.sampling.smoothing_curve; }},
      {"seed", true, {"0", "1", "2147483648", "9223372036854775807"}, {"9223372036854775808"}, {},
       [](const G& o) { return AsDouble(o.sampling.seed); }},
      {"sampler_seed", true, {"0", "7"}, {"9223372036854775808"}, {},
       [](const G& o) { return AsDouble(o.sampling.seed); }},
      {"n", true, {"1", "16"}, {"-1", "0", "-0", "17"}, 1,
       [](const G& o) { return double(o.n); }},
      {"max_tokens", true, {"1", "2147483647"}, {"-1", "0", "2147483648"}, {},
       [](const G& o) { return AsDouble(o.max_tokens); }, kChatRoute},
      {"max_tokens", true, {"1", "2147483647"}, {"-1", "0", "2147483648"}, 16,
       [](const G& o) { return AsDouble(o.max_tokens); }, kCompletionRoute},
      {"max_completion_tokens", true, {"1", "9"}, {"-1", "0", "2147483648"}, {},
       [](const G& o) { return AsDouble(o.max_tokens); }, kChatRoute},
      {"max_new_tokens", true, {"1", "9"}, {"-1", "0", "2147483648"}, {},
       [](const G& o) { return AsDouble(o.max_tokens); }, kChatRoute},
      {"n_predict", true, {"1", "9"}, {"-2", "0", "2147483648"}, {},
       [](const G& o) { return AsDouble(o.max_tokens); }, kChatRoute},
      {"num_predict", true, {"1", "9"}, {"-2", "0", "2147483648"}, {},
       [](const G& o) { return AsDouble(o.max_tokens); }, kChatRoute},
      {"min_tokens", true, {"0", "-0", "16"}, {"-1", "2147483648"}, 0,
       [](const G& o) { return double(o.min_tokens); }},
      {"truncate_prompt_tokens", true, {"1", "2147483647"}, {"-1", "0", "2147483648"}, {},
       [](const G& o) { return AsDouble(o.truncate_prompt_tokens); }},
      {"priority", true, {"-100", "0", "100"}, {"-101", "101"}, 0,
       [](const G& o) { return double(o.priority); }},
      {"prompt_logprobs", true, {"0", "20"}, {"-1", "21"}, {},
       [](const G& o) { return AsDouble(o.output.prompt_logprobs); }},
      {"logprobs", true, {"0", "20"}, {"-1", "21"}, {},
       [](const G& o) { return AsDouble(o.output.top_logprobs); }, kCompletionRoute},
      {"n_probs", true, {"0", "20"}, {"-1", "21"}, {},
       [](const G& o) { return AsDouble(o.output.top_logprobs); }, kCompletionRoute},
  };
  return fields;
}
// clang-format on

// What no number field takes, whatever its range.
const std::vector<std::string> kNoNumber = {
    R"("1")",   "true",  "false",  "[]",  "[1]", "{}", R"("")", "NaN", "-NaN",
    "Infinity", "1e400", "-1e400", "0x1", "01",  "1.", ".5",    "+1"};
const std::vector<std::string> kNoInteger = {"1.0",
                                             "1e0",
                                             "1.5",
                                             "-0.0",
                                             "9223372036854775808",
                                             "18446744073709551615",
                                             "18446744073709551616",
                                             "-9223372036854775809",
                                             "1e19"};

// Runs `check` for each field on each route that has it.
void ForEach(const std::function<void(const NumberField&, Endpoints)>& check) {
  for (const NumberField& field : Fields()) {
    for (const Endpoints route : {kChatRoute, kCompletionRoute}) {
      if ((field.routes & route) == 0) continue;
      SCOPED_TRACE(field.name + (route == kChatRoute ? " in chat" : " in completions"));
      check(field, route);
    }
  }
}

TEST(NumberFieldsTest, EveryValueInRangeIsReadAsWritten) {
  ForEach([](const NumberField& field, Endpoints route) {
    for (const std::string& good : field.good) {
      const auto options = ParseOptionsOf(route, Member(field.name, good));
      ASSERT_TRUE(options.ok()) << good << ": " << options.status();
      EXPECT_EQ(field.read(*options), std::stod(good)) << good;
      EXPECT_THAT(options->warnings, testing::IsEmpty()) << good;
    }
  });
}

TEST(NumberFieldsTest, AbsentAndNullAreTheDefault) {
  ForEach([](const NumberField& field, Endpoints route) {
    const auto absent = ParseOptionsOf(route, "");
    ASSERT_TRUE(absent.ok()) << absent.status();
    EXPECT_EQ(field.read(*absent), field.absent);
    const auto null = ParseOptionsOf(route, Member(field.name, "null"));
    ASSERT_TRUE(null.ok()) << null.status();
    EXPECT_EQ(field.read(*null), field.absent);
  });
}

TEST(NumberFieldsTest, EveryValueOutOfRangeIsA400ThatNamesTheField) {
  ForEach([](const NumberField& field, Endpoints route) {
    for (const std::string& bad : field.bad) {
      SCOPED_TRACE(bad);
      ExpectRefused(Parse(route, BodyOf(route, Member(field.name, bad))), field.name);
    }
  });
}

TEST(NumberFieldsTest, WhatIsNoNumberIsA400ThatNamesTheField) {
  ForEach([](const NumberField& field, Endpoints route) {
    for (const std::string& bad : kNoNumber) {
      SCOPED_TRACE(bad);
      ExpectRefused(Parse(route, BodyOf(route, Member(field.name, bad))), field.name);
    }
    for (const std::string& bad : kNoInteger) {
      if (!field.integer) continue;
      SCOPED_TRACE(bad);
      ExpectRefused(Parse(route, BodyOf(route, Member(field.name, bad))), field.name);
    }
  });
}

TEST(NumberFieldsTest, AMessageGivesTheWholeBound) {
  EXPECT_EQ(Chat(R"("max_tokens":0)").status().message(),
            "max_tokens: must be at least 1 and at most 2147483647");
  EXPECT_EQ(Chat(R"("top_p":0)").status().message(), "top_p: must be over 0 and at most 1");
}

TEST(NumberFieldsTest, SeedMinusOneIsRandomAndOtherNegativeSeedsAreSeeds) {
  EXPECT_EQ(Chat(R"("seed":-1)")->sampling.seed, std::nullopt);
  EXPECT_EQ(Chat(R"("sampler_seed":-1)")->sampling.seed, std::nullopt);
  EXPECT_EQ(Chat(R"("seed":-2)")->sampling.seed, ~uint64_t{1});
  EXPECT_EQ(Chat(R"("seed":-9223372036854775808)")->sampling.seed, uint64_t{1} << 63);
}

TEST(NumberFieldsTest, MinusOneTokensToPredictIsTheRestOfTheContext) {
  EXPECT_EQ(Chat(R"("n_predict":-1)")->max_tokens, std::nullopt);
  EXPECT_EQ(ParseOptionsOf(kCompletionRoute, R"("n_predict":-1)")->max_tokens, std::nullopt);
  EXPECT_EQ(ParseOptionsOf(kCompletionRoute, R"("n_predict":-1,"min_tokens":99)")->min_tokens, 99u);
}

TEST(NumberFieldsTest, MinTokensMustFitInMaxTokens) {
  EXPECT_TRUE(Chat(R"("min_tokens":5,"max_tokens":5)").ok());
  ExpectRefused(Chat(R"("min_tokens":6,"max_tokens":5)").status(), "min_tokens");
  EXPECT_TRUE(Chat(R"("min_tokens":6,"max_tokens":null)").ok());
  ExpectRefused(ParseOptionsOf(kCompletionRoute, R"("min_tokens":17)").status(), "min_tokens");
}

TEST(NumberFieldsTest, BestOfMustEqualN) {
  EXPECT_TRUE(Chat(R"("best_of":1)").ok());
  EXPECT_TRUE(Chat(R"("best_of":4,"n":4)").ok());
  ExpectRefused(Chat(R"("best_of":4)").status(), "best_of");
  ExpectRefused(Chat(R"("best_of":17)").status(), "best_of");
  ExpectRefused(Chat(R"("best_of":1.0)").status(), "best_of");
}

TEST(NumberFieldsTest, TopLogprobsNeedLogprobs) {
  EXPECT_EQ(Chat("")->output.top_logprobs, std::nullopt);
  EXPECT_EQ(Chat(R"("logprobs":false)")->output.top_logprobs, std::nullopt);
  EXPECT_EQ(Chat(R"("logprobs":true)")->output.top_logprobs, 0u);
  EXPECT_EQ(Chat(R"("logprobs":true,"top_logprobs":20)")->output.top_logprobs, 20u);
  EXPECT_EQ(Chat(R"("top_logprobs":0)")->output.top_logprobs, std::nullopt);
  ExpectRefused(Chat(R"("top_logprobs":1)").status(), "top_logprobs");
  ExpectRefused(Chat(R"("logprobs":true,"top_logprobs":21)").status(), "top_logprobs");
  ExpectRefused(Chat(R"("logprobs":true,"top_logprobs":-1)").status(), "top_logprobs");
  ExpectRefused(Chat(R"("logprobs":true,"top_logprobs":1.0)").status(), "top_logprobs");
  ExpectRefused(Chat(R"("logprobs":1)").status(), "logprobs");
  ExpectRefused(ParseOptionsOf(kCompletionRoute, R"("logprobs":true)").status(), "logprobs");
}

TEST(NumberFieldsTest, PromptLogprobsDoNotStream) {
  ExpectRefused(Chat(R"("prompt_logprobs":1,"stream":true)").status(), "prompt_logprobs");
}

}  // namespace
}  // namespace behemoth::gateway
