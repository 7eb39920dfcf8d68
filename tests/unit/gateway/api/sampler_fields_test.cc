// The samplers of role-play clients in every spelling that those clients have (spec model.md 4.3).
#include <map>

#include "tests/unit/gateway/api/bodies.h"

namespace behemoth::gateway {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using enum SamplerStage;

SamplingOptions Of(std::string_view members) {
  const auto options = Chat(members);
  EXPECT_TRUE(options.ok()) << members << ": " << options.status();
  return options.ok() ? options->sampling : SamplingOptions{};
}

TEST(SamplerFieldsTest, DryIsOffWithoutAMultiplierWhateverElseIsSent) {
  EXPECT_FALSE(Of("").dry);
  EXPECT_FALSE(Of(R"("dry_multiplier":0,"dry_base":0,"dry_allowed_length":0)").dry);
  EXPECT_FALSE(Of(R"("dry_base":1.75,"dry_allowed_length":2,"dry_penalty_last_n":512)").dry);
}

TEST(SamplerFieldsTest, DryTakesItsFieldsAndTheSpecsBreakers) {
  const auto plain = Of(R"("dry_multiplier":0.8)").dry;
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->multiplier, 0.8);
  EXPECT_EQ(plain->base, std::nullopt);
  EXPECT_EQ(plain->allowed_length, std::nullopt);
  EXPECT_EQ(plain->last_n, 0u);
  EXPECT_THAT(plain->breakers, ElementsAre("\n", ":", "\"", "*"));
  const auto full =
      Of(R"("dry_multiplier":0.8,"dry_base":2,"dry_allowed_length":3,"dry_range":64)");
  EXPECT_EQ(full.dry->base, 2);
  EXPECT_EQ(full.dry->allowed_length, 3u);
  EXPECT_EQ(full.dry->last_n, 64u);
  EXPECT_EQ(Of(R"("dry_multiplier":1,"dry_penalty_last_n":-1)").dry->last_n, 0u);
  EXPECT_EQ(Of(R"("dry_multiplier":1,"dry_penalty_last_n":9)").dry->last_n, 9u);
}

TEST(SamplerFieldsTest, DryFieldsThatCannotBeAreRefusedOnceItIsOn) {
  const std::pair<std::string, std::string> bad[] = {
      {R"("dry_base":0.5)", "dry_base"},
      {R"("dry_allowed_length":0)", "dry_allowed_length"},
      {R"("dry_penalty_last_n":-2)", "dry_penalty_last_n"},
      {R"("dry_range":-2)", "dry_range"},
      {R"("dry_allowed_length":1.5)", "dry_allowed_length"},
      {R"("dry_base":"2")", "dry_base"},
  };
  for (const auto& [members, param] : bad) {
    ExpectRefused(Chat(R"("dry_multiplier":0.8,)" + members).status(), param);
  }
  ExpectRefused(Chat(R"("dry_multiplier":-1)").status(), "dry_multiplier");
}

TEST(SamplerFieldsTest, BreakersAreAListOrOneAsJsonInAString) {
  const auto breakers = [](const std::string& json) {
    return Of(R"("dry_multiplier":1,"dry_sequence_breakers":)" + json).dry->breakers;
  };
  EXPECT_THAT(breakers(R"(["a","b","a"])"), ElementsAre("a", "b"));
  EXPECT_THAT(breakers("[]"), IsEmpty());
  EXPECT_THAT(breakers(R"("")"), IsEmpty());
  EXPECT_THAT(breakers(R"("[\"\\n\", \":\"]")"), ElementsAre("\n", ":"));
  EXPECT_THAT(breakers(R"("\"\\n\", \"*\"")"), ElementsAre("\n", "*"));
  for (const std::string bad : {"1", "{}", "[1]", R"([""])", R"("a")", R"("[1]")", R"("{")"}) {
    SCOPED_TRACE(bad);
    ExpectRefused(Chat("\"dry_sequence_breakers\":" + bad).status(), "dry_sequence_breakers");
  }
  const std::string longest(40, 'x');
  EXPECT_EQ(breakers("[\"" + longest + "\"]").size(), 1u);
  ExpectRefused(Chat("\"dry_sequence_breakers\":[\"x" + longest + "\"]").status(),
                "dry_sequence_breakers");
  std::string many = "[";
  for (int i = 0; i < 65; ++i) many += (i > 0 ? ",\"" : "\"") + std::to_string(i) + '"';
  ExpectRefused(Chat("\"dry_sequence_breakers\":" + many + "]").status(), "dry_sequence_breakers");
}

TEST(SamplerFieldsTest, DynamicTemperatureIsReadInEverySpelling) {
  struct Case {
    std::string members;
    double low, high;
    std::optional<double> exponent;
  };
  const Case cases[] = {
      {R"("dynamic_temperature":true,"dynatemp_low":0.5,"dynatemp_high":1.5)", 0.5, 1.5, {}},
      {R"("dynatemp_min":0.5,"dynatemp_max":1.5,"dynatemp_exponent":2)", 0.5, 1.5, 2},
      {R"("min_temp":0.5,"max_temp":1.5,"temp_exponent":0.5)", 0.5, 1.5, 0.5},
      {R"("temperature":1.25,"dynatemp_range":0.5)", 0.75, 1.75, {}},
      {R"("dynatemp_range":2)", 0, 3, {}},
      {R"("dynamic_temperature":true,"dynatemp_low":1,"dynatemp_high":1)", 1, 1, {}},
      // What SillyTavern sends to text-generation-webui: all of them at once.
      {R"("temperature":1,"dynamic_temperature":true,"dynatemp_low":0.5,"dynatemp_high":2,)"
       R"("dynatemp_range":0.75,"dynatemp_exponent":1,"dynatemp_min":0.5,"dynatemp_max":2)",
       0.5, 2, 1},
  };
  for (const Case& c : cases) {
    const auto options = Chat(c.members);
    ASSERT_TRUE(options.ok()) << options.status();
    EXPECT_THAT(options->warnings, IsEmpty()) << c.members;
    const auto dynamic = options->sampling.dynamic_temperature;
    ASSERT_TRUE(dynamic) << c.members;
    EXPECT_EQ(dynamic->low, c.low) << c.members;
    EXPECT_EQ(dynamic->high, c.high) << c.members;
    EXPECT_EQ(dynamic->exponent, c.exponent) << c.members;
  }
}

TEST(SamplerFieldsTest, DynamicTemperatureIsOffWhereAClientMeansOff) {
  for (const std::string members :
       {R"("dynamic_temperature":false)", R"("dynatemp_range":0)",
        R"("dynatemp_min":0,"dynatemp_max":0)", R"("min_temp":1,"max_temp":1)",
        R"("dynamic_temperature":false,"dynatemp_low":0.5,"dynatemp_high":2)",
        R"("dynatemp_exponent":1)"}) {
    const auto options = Chat(members);
    ASSERT_TRUE(options.ok()) << options.status();
    EXPECT_FALSE(options->sampling.dynamic_temperature) << members;
    EXPECT_THAT(options->warnings, IsEmpty()) << members;
  }
}

TEST(SamplerFieldsTest, ADynamicTemperatureThatCannotBeIsRefused) {
  const std::pair<std::string, std::string> bad[] = {
      {R"("dynamic_temperature":true)", "dynamic_temperature"},
      {R"("dynatemp_low":1)", "dynatemp_high"},
      {R"("max_temp":1)", "dynatemp_low"},
      {R"("dynatemp_low":2,"dynatemp_high":1)", "dynatemp_high"},
      {R"("min_temp":2,"max_temp":1)", "max_temp"},
      {R"("dynatemp_low":1,"dynatemp_high":2,"dynatemp_exponent":0)", "dynatemp_exponent"},
      {R"("dynatemp_low":1,"dynatemp_high":2,"temp_exponent":0)", "temp_exponent"},
      {R"("dynatemp_range":-1)", "dynatemp_range"},
  };
  for (const auto& [members, param] : bad) ExpectRefused(Chat(members).status(), param);
  const auto both = Chat(R"("dynatemp_low":1,"dynatemp_high":2,"dynatemp_range":2)");
  EXPECT_THAT(FieldsOf(both->warnings), ElementsAre("dynatemp_range"));
}

TEST(SamplerFieldsTest, TemperatureLastMovesItBehindTheOthers) {
  EXPECT_THAT(Of("").order, IsEmpty());
  EXPECT_THAT(Of(R"("temperature_last":false)").order, IsEmpty());
  EXPECT_THAT(Of(R"("temperature_last":true)").order,
              ElementsAre(kTopNSigma, kTypicalP, kMinP, kTopK, kTopP, kXtc, kTemperature));
}

TEST(SamplerFieldsTest, AnOrderIsReadInTheNamesOfEveryClient) {
  const std::pair<std::string, std::vector<SamplerStage>> cases[] = {
      {R"("sampler_order":["min_p","temperature"])", {kMinP, kTemperature}},
      // KoboldAI's numbers, as SillyTavern's default has them.
      {R"("sampler_order":[6,0,1,3,4,2,5])", {kTopK, kTypicalP, kTopP, kTemperature}},
      // llama.cpp's.
      {R"("samplers":["penalties","dry","top_n_sigma","top_k","typ_p","top_p","min_p","xtc",)"
       R"("temperature"])",
       {kTopNSigma, kTopK, kTypicalP, kTopP, kMinP, kXtc, kTemperature}},
      // text-generation-webui's.
      {R"("sampler_priority":["repetition_penalty","presence_penalty","frequency_penalty","dry",)"
       R"("top_n_sigma","temperature","dynamic_temperature","quadratic_sampling","top_p","top_k",)"
       R"("typical_p","epsilon_cutoff","eta_cutoff","tfs","top_a","min_p","mirostat","xtc"])",
       {kTopNSigma, kTemperature, kTopP, kTopK, kTypicalP, kMinP, kXtc}},
      // aphrodite's.
      {R"("sampler_priority":["dry","penalties","no_repeat_ngram","temperature","top_nsigma",)"
       R"("top_p_top_k","top_a","min_p","tfs","eta_cutoff","epsilon_cutoff","typical_p",)"
       R"("quadratic","xtc"])",
       {kTemperature, kTopNSigma, kTopK, kTopP, kMinP, kTypicalP, kXtc}},
      {R"("sampler_order":[])", {}},
      {R"("sampler_order":"")", {}},
  };
  for (const auto& [members, order] : cases) {
    const auto options = Chat(members);
    ASSERT_TRUE(options.ok()) << options.status();
    EXPECT_EQ(options->sampling.order, order) << members;
    EXPECT_THAT(options->warnings, IsEmpty()) << members;
  }
}

TEST(SamplerFieldsTest, AnOrderThatCannotBeIsRefusedOrNamed) {
  ExpectRefused(Chat(R"("sampler_order":["top_q"])").status(), "sampler_order[0]");
  ExpectRefused(Chat(R"("samplers":["top_k",7])").status(), "samplers[1]");
  ExpectRefused(Chat(R"("sampler_priority":[null])").status(), "sampler_priority[0]");
  ExpectRefused(Chat(R"("sampler_order":{"top_k":1})").status(), "sampler_order");
  ExpectRefused(Chat(R"("sampler_order":"top_k")").status(), "sampler_order");
  const auto late = Chat(R"("sampler_order":["top_k","dry"])");
  EXPECT_THAT(FieldsOf(late->warnings), ElementsAre("sampler_order"));
  const auto both = Chat(R"("temperature_last":true,"sampler_order":["temperature","top_k"])");
  EXPECT_THAT(FieldsOf(both->warnings), ElementsAre("temperature_last"));
  EXPECT_THAT(both->sampling.order, ElementsAre(kTemperature, kTopK));
}

TEST(SamplerFieldsTest, BadWordsAreAListOfTexts) {
  EXPECT_THAT(Of("").bad_words, IsEmpty());
  EXPECT_THAT(Of(R"("bad_words":"")").bad_words, IsEmpty());
  EXPECT_THAT(Of(R"("bad_words":["a"," b","a"])").bad_words, ElementsAre("a", " b"));
  EXPECT_THAT(Of(R"("bad_words":"one")").bad_words, ElementsAre("one"));
  ExpectRefused(Chat(R"("bad_words":1)").status(), "bad_words");
  ExpectRefused(Chat(R"("bad_words":["a",1])").status(), "bad_words[1]");
  ExpectRefused(Chat(R"("bad_words":[""])").status(), "bad_words[0]");
  ExpectRefused(Chat(R"("bad_words":["  "])").status(), "bad_words");
  ExpectRefused(Chat("\"bad_words\":[\"" + std::string(257, 'x') + "\"]").status(), "bad_words[0]");
  std::string many = "[\"a\"";
  for (int i = 0; i < 512; ++i) many += ",\"" + std::to_string(i) + '"';
  ExpectRefused(Chat("\"bad_words\":" + many + "]").status(), "bad_words");
}

TEST(SamplerFieldsTest, BannedStringsAreAListOfTexts) {
  EXPECT_THAT(Of("").banned_strings, IsEmpty());
  EXPECT_THAT(Of(R"("banned_strings":[])").banned_strings, IsEmpty());
  EXPECT_THAT(Of(R"("banned_strings":"")").banned_strings, IsEmpty());
  EXPECT_THAT(Of(R"("banned_strings":["a b"," ","a b"])").banned_strings, ElementsAre("a b", " "));
  EXPECT_THAT(Of(R"("banned_strings":"one")").banned_strings, ElementsAre("one"));
  ExpectRefused(Chat(R"("banned_strings":true)").status(), "banned_strings");
  ExpectRefused(Chat(R"("banned_strings":[""])").status(), "banned_strings[0]");
  ExpectRefused(Chat(R"("banned_strings":["a",null])").status(), "banned_strings[1]");
}

TEST(SamplerFieldsTest, OffHasEveryClientsWord) {
  EXPECT_EQ(Of(R"("nsigma":-1)").top_n_sigma, 0);
  EXPECT_FALSE(Of("").ban_eos);
  EXPECT_FALSE(Of(R"("ban_eos_token":false)").ban_eos);
  EXPECT_TRUE(Of(R"("ban_eos_token":true)").ban_eos);
}

}  // namespace
}  // namespace behemoth::gateway
