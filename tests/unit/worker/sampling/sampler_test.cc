#include "worker/sampling/sampler.h"
#include "tests/unit/worker/sampling/chi_square.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "kernels/sampling/mass.h"
#include "tests/unit/worker/sampling/chi_square.h"

namespace behemoth::worker {
namespace {

using Json = nlohmann::json;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

SamplerState Bound(const SamplingParams& params, int32_t vocabulary,
                   std::vector<TokenId> prompt = {}, std::vector<TokenId> output = {},
                   int32_t sequence = 0) {
  SamplerState state(vocabulary);
  state.Bind({.slot = SlotId{0},
              .sequence = sequence,
              .sampling = std::make_shared<SamplingParams>(params),
              .prompt = std::move(prompt),
              .output = std::move(output)});
  return state;
}

SampleResult SampleOf(SamplerState& state, std::vector<float> logits, int32_t position = 0) {
  return state.Sample(logits, position);
}

SamplingParams Greedy() {
  SamplingParams params;
  params.temperature = 0;
  return params;
}

// ---- Philox: the known answers that its authors publish with Random123 (kat_vectors)
// -------------
TEST(PhiloxTest, GivesThePublishedKnownAnswers) {
  const auto words = [](kernels::PhiloxBlock counter, uint64_t key) {
    const kernels::PhiloxBlock r = kernels::Philox4x32(counter, key);
    return std::vector<uint32_t>(r.word, r.word + 4);
  };
  EXPECT_EQ(words({{0, 0, 0, 0}}, 0),
            (std::vector<uint32_t>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(words({{~0u, ~0u, ~0u, ~0u}}, ~uint64_t{0}),
            (std::vector<uint32_t>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(words({{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, 0x299f31d0a4093822),
            (std::vector<uint32_t>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

// ---- Against Hugging Face's processors: make_processors.py
// ---------------------------------------
class ProcessorsTest : public testing::Test {
 protected:
  ProcessorsTest() {
    std::ifstream file(BEHEMOTH_SOURCE_DIR "/tests/unit/worker/sampling/processors.json");
    cases_ = Json::parse(file, nullptr, false).value("cases", Json::array());
    EXPECT_GE(cases_.size(), 20u);
  }

  static SamplingParams ParamsOf(const Json& json) {
    SamplingParams params;
    params.temperature = json.value("temperature", 1.0f);
    params.top_p = json.value("top_p", 1.0f);
    params.top_k = json.value("top_k", 0);
    params.min_p = json.value("min_p", 0.0f);
    params.repetition_penalty = json.value("repetition_penalty", 1.0f);
    params.presence_penalty = json.value("presence_penalty", 0.0f);
    params.frequency_penalty = json.value("frequency_penalty", 0.0f);
    params.seed = 42;
    return params;
  }

  Json cases_;
};

TEST_F(ProcessorsTest, PenaltiesMakeTheSameLogits) {
  for (const Json& c : cases_) {
    auto logits = c["logits"].get<std::vector<float>>();
    SamplerState state =
        Bound(ParamsOf(c["params"]), static_cast<int32_t>(logits.size()), c["prompt"], c["output"]);
    state.Sample(logits, 9);
    const auto expected = c["adjusted"].get<std::vector<float>>();
    for (size_t id = 0; id < logits.size(); ++id) {
      // Two roundings of a value below 32 on either side.
      EXPECT_NEAR(logits[id], expected[id], 4 * 0x1p-20) << c["params"] << " id " << id;
    }
  }
}

// Nothing outside the reference's set is ever drawn, and what is drawn follows its distribution:
// chi-square over the ids expected at least 5 times, the rest pooled, at p = 1e-6.
TEST_F(ProcessorsTest, DrawsFollowTheSameDistribution) {
  constexpr int32_t kDraws = 12000;
  for (const Json& c : cases_) {
    const auto logits = c["logits"].get<std::vector<float>>();
    const auto probabilities = c["probabilities"].get<std::vector<double>>();
    std::vector<int32_t> hits(logits.size(), 0);
    SamplerState state(static_cast<int32_t>(logits.size()));
    const SlotBinding binding = {
        .slot = SlotId{0},
        .sampling = std::make_shared<SamplingParams>(ParamsOf(c["params"])),
        .prompt = c["prompt"],
        .output = c["output"]};
    for (int32_t draw = 0; draw < kDraws; ++draw) {
      state.Bind(binding);  // draws would count as output
      ++hits[SampleOf(state, logits, draw).token];
    }
    ExpectFollows(probabilities, hits, kDraws, 4.75, c["params"].dump());
  }
}

TEST_F(ProcessorsTest, LogprobsAreOfTheRawLogits) {
  for (const Json& c : cases_) {
    const auto logits = c["logits"].get<std::vector<float>>();
    const auto expected = c["logprobs"].get<std::vector<double>>();
    SamplingParams params = ParamsOf(c["params"]);
    params.top_logprobs = 5;
    SamplerState state =
        Bound(params, static_cast<int32_t>(logits.size()), c["prompt"], c["output"]);
    const SampleResult result = SampleOf(state, logits, 3);
    ASSERT_TRUE(result.logprobs);
    const TokenLogprobs& score = *result.logprobs;
    EXPECT_NEAR(score.logprob, expected[result.token], 1e-5);
    const auto larger = std::count_if(logits.begin(), logits.end(),
                                      [&](float x) { return x > logits[result.token]; });
    EXPECT_EQ(score.rank, 1 + larger);
    ASSERT_EQ(score.top_ids.size(), 5u);
    for (size_t i = 0; i < 5; ++i) {
      EXPECT_NEAR(score.top_logprobs[i], expected[score.top_ids[i]], 1e-5);
      EXPECT_EQ(std::count_if(logits.begin(), logits.end(),
                              [&](float x) { return x > logits[score.top_ids[i]]; }),
                static_cast<int64_t>(i));
    }
  }
}

// ---- Greedy, masks, bias
// -------------------------------------------------------------------------
TEST(SamplerTest, GreedyTiesGoToTheLowestId) {
  SamplerState state = Bound(Greedy(), 5);
  EXPECT_EQ(SampleOf(state, {1, 3, 2, 3, 3}).token, 1);
  SamplingParams one = Greedy();
  one.temperature = 9e-6f;  // vLLM's border of greedy is 1e-5
  state = Bound(one, 5);
  EXPECT_EQ(SampleOf(state, {1, 3, 2, 3, 3}).token, 1);
}

TEST(SamplerTest, TiesAtTheBorderOfTopKAllStay) {
  SamplingParams params;
  params.top_k = 2;
  SamplerState state = Bound(params, 5);
  std::vector<int32_t> hits(5, 0);
  for (int32_t draw = 0; draw < 600; ++draw) ++hits[SampleOf(state, {0, 2, 2, 2, 1}, draw).token];
  EXPECT_EQ(hits[0] + hits[4], 0);
  for (const int32_t id : {1, 2, 3}) EXPECT_GT(hits[id], 120) << id;
}

TEST(SamplerTest, AllowedBannedAndBiasDecideBeforeAllElse) {
  const std::vector<float> logits = {5, 4, 3, 2, 1};
  SamplingParams params = Greedy();
  params.allowed_ids = {2, 3, 4};
  SamplerState state = Bound(params, 5);
  EXPECT_EQ(SampleOf(state, logits).token, 2);
  params.banned_ids = {2};
  state = Bound(params, 5);
  EXPECT_EQ(SampleOf(state, logits).token, 3);
  params.logit_bias = {{4, 2.5f}};
  state = Bound(params, 5);
  EXPECT_EQ(SampleOf(state, logits).token, 4);
  params.logit_bias = {{4, -100.0f}, {3, 1.0f}, {2, 90.0f}};  // -100 removes; a ban is not outbid
  state = Bound(params, 5);
  EXPECT_EQ(SampleOf(state, logits).token, 3);
}

TEST(SamplerTest, MinTokensHoldsStopIdsBackUntilSoMany) {
  SamplingParams params = Greedy();
  params.min_tokens = 2;
  params.stop_ids = {0, 1};
  SamplerState state = Bound(params, 3);
  const std::vector<float> logits = {9, 8, 1};
  EXPECT_EQ(SampleOf(state, logits, 10).token, 2);
  EXPECT_EQ(SampleOf(state, logits, 11).token, 2);
  EXPECT_EQ(SampleOf(state, logits, 12).token, 0);
  // After a preemption the output counts, wherever it was made.
  state = Bound(params, 3, {}, {2});
  EXPECT_EQ(SampleOf(state, logits, 11).token, 2);
  EXPECT_EQ(SampleOf(state, logits, 12).token, 0);
}

TEST(SamplerTest, NothingAllowedIsNotFinite) {
  SamplingParams params = Greedy();
  params.allowed_ids = {1};
  params.banned_ids = {1};
  SamplerState state = Bound(params, 3);
  EXPECT_FALSE(SampleOf(state, {1, 2, 3}).finite);
  EXPECT_EQ(state.last_token(), -1);
}

TEST(SamplerTest, NanAndInfinityFailTheRowAndCountNothing) {
  SamplingParams params = Greedy();
  params.frequency_penalty = 2;
  SamplerState state = Bound(params, 3);
  EXPECT_EQ(SampleOf(state, {1, 2.5f, 0}).token, 1);
  for (const float bad : {std::nanf(""), kInfinity}) {
    EXPECT_FALSE(SampleOf(state, {1, 1, bad}).finite);
    EXPECT_FALSE(SampleOf(state, {bad, 1, 1}).finite);
  }
  EXPECT_EQ(state.last_token(), 1);
  EXPECT_FALSE(SampleOf(state, {-kInfinity, -kInfinity, -kInfinity}).finite);
  EXPECT_EQ(SampleOf(state, {-kInfinity, 1, 0.5f}).token, 2);  // -inf is a mask; 1 costs 2 by now
}

// ---- Draws
// ---------------------------------------------------------------------------------------
TEST(SamplerTest, ADrawDependsOnSeedSequenceAndPositionAlone) {
  const std::vector<float> flat(1000, 0.0f);
  SamplingParams params;
  params.seed = 7;
  const auto draw = [&](uint64_t seed, int32_t sequence, int32_t position) {
    params.seed = seed;
    SamplerState state = Bound(params, 1000, {}, {}, sequence);
    SampleOf(state, flat, 999);  // what came before does not matter
    return SampleOf(state, flat, position).token;
  };
  const TokenId token = draw(7, 0, 5);
  EXPECT_EQ(draw(7, 0, 5), token);
  EXPECT_NE(draw(8, 0, 5), token);
  EXPECT_NE(draw(7, 1, 5), token);
  EXPECT_NE(draw(7, 0, 6), token);
  EXPECT_NE(draw(7 + (uint64_t{1} << 32), 0, 5), token);  // the upper half of the seed counts
}

TEST(SamplerTest, AHugeTemperatureIsFlatAndATinyOneIsGreedy) {
  SamplingParams params;
  params.temperature = 1e-4f;
  SamplerState state = Bound(params, 4);
  for (int32_t i = 0; i < 50; ++i) EXPECT_EQ(SampleOf(state, {80, 79, -300, 0}, i).token, 0);
  params.temperature = 1e30f;
  state = Bound(params, 4);
  std::vector<int32_t> hits(4, 0);
  for (int32_t i = 0; i < 400; ++i) ++hits[SampleOf(state, {80, 79, -300, 0}, i).token];
  for (const int32_t hit : hits) EXPECT_GT(hit, 60);
}

}  // namespace
}  // namespace behemoth::worker
