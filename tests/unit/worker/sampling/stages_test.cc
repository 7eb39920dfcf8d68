// Every stage against its published definition: make_stages.py. What is adjusted must be equal,
// what is removed never drawn, and 100,000 draws must follow the distribution.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>

#include "kernels/sampling/stage_math.h"
#include "tests/unit/worker/sampling/chi_square.h"
#include "worker/sampling/sampler.h"

namespace behemoth::worker {
namespace {

using Json = nlohmann::json;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

SamplerOrder OrderOf(const Json& names) {
  const std::vector<std::string> all = {"temperature", "top_n_sigma", "typical_p", "min_p",
                                        "top_k",       "top_p",       "xtc"};
  std::vector<size_t> order;
  for (const Json& name : names) {
    order.push_back(static_cast<size_t>(std::find(all.begin(), all.end(), name) - all.begin()));
  }
  for (size_t i = 0; i < all.size(); ++i) {
    if (std::find(order.begin(), order.end(), i) == order.end()) order.push_back(i);
  }
  SamplerOrder stages;
  for (size_t i = 0; i < stages.size(); ++i) stages[i] = static_cast<SamplerStage>(order[i]);
  return stages;
}

DryParams DryOf(const Json& json) {
  DryParams dry;
  dry.multiplier = json.value("multiplier", 0.0f);
  dry.base = json.value("base", dry.base);
  dry.allowed_length = json.value("allowed_length", dry.allowed_length);
  dry.last_n = json.value("last_n", 0);
  dry.breaker_ids = json.value("breaker_ids", std::vector<TokenId>());
  for (const Json& breaker : json.value("spanning", Json::array())) {
    dry.spanning_breakers.push_back({.heads = breaker[0], .tail = breaker[1]});
  }
  return dry;
}

SamplingParams ParamsOf(const Json& json) {
  SamplingParams params;
  params.temperature = json.value("temperature", 1.0f);
  params.top_p = json.value("top_p", 1.0f);
  params.top_k = json.value("top_k", 0);
  params.min_p = json.value("min_p", 0.0f);
  params.typical_p = json.value("typical_p", 1.0f);
  params.top_n_sigma = json.value("top_n_sigma", 0.0f);
  params.xtc_probability = json.value("xtc_probability", 0.0f);
  params.xtc_threshold = json.value("xtc_threshold", 0.1f);
  params.smoothing_factor = json.value("smoothing_factor", 0.0f);
  params.smoothing_curve = json.value("smoothing_curve", 1.0f);
  if (json.contains("dynamic_temperature")) {
    const Json& d = json["dynamic_temperature"];
    params.dynamic_temperature = DynamicTemperature{d[0], d[1], d[2]};
  }
  params.order = OrderOf(json.value("order", Json::array()));
  params.dry = DryOf(json.value("dry", Json::object()));
  params.banned_sequences = json.value("banned_sequences", std::vector<std::vector<TokenId>>());
  params.seed = 43;
  return params;
}

class StagesTest : public testing::Test {
 protected:
  StagesTest() {
    std::ifstream file(BEHEMOTH_SOURCE_DIR "/tests/unit/worker/sampling/stages.json");
    cases_ = Json::parse(file, nullptr, false).value("cases", Json::array());
    EXPECT_GE(cases_.size(), 30u);
  }

  static SlotBinding BindingOf(const Json& c) {
    return {.slot = SlotId{0},
            .sampling = std::make_shared<SamplingParams>(ParamsOf(c["params"])),
            .prompt = c["prompt"],
            .output = c["output"]};
  }

  Json cases_;
};

TEST_F(StagesTest, RepeatsAndBannedSequencesMakeTheSameLogits) {
  for (const Json& c : cases_) {
    auto logits = c["logits"].get<std::vector<float>>();
    SamplingParams params = ParamsOf(c["params"]);
    params.order = kDefaultOrder;  // another one removes ids from the logits
    SlotBinding binding = BindingOf(c);
    binding.sampling = std::make_shared<SamplingParams>(params);
    SamplerState state(static_cast<int32_t>(logits.size()));
    state.Bind(binding);
    state.Sample(logits, 40);
    for (size_t id = 0; id < logits.size(); ++id) {
      const Json& expected = c["adjusted"][id];
      if (expected.is_null()) {
        EXPECT_EQ(logits[id], -kInfinity) << c["params"] << " id " << id;
      } else {
        // A power of at most 38 factors, and roundings of a value below 2^11.
        EXPECT_NEAR(logits[id], expected.get<float>(),
                    1e-5f * std::max(1.0f, std::abs(expected.get<float>())))
            << c["params"] << " id " << id;
      }
    }
  }
}

// Chi-square over the ids expected at least 5 times, the rest pooled, at p = 0.001.
TEST_F(StagesTest, DrawsFollowTheDefinition) {
  constexpr int32_t kDraws = 100'000;
  for (const Json& c : cases_) {
    const auto logits = c["logits"].get<std::vector<float>>();
    const auto probabilities = c["probabilities"].get<std::vector<double>>();
    std::vector<int32_t> hits(logits.size(), 0);
    SamplerState state(static_cast<int32_t>(logits.size()));
    const SlotBinding binding = BindingOf(c);
    const bool looks_back =
        binding.sampling->dry.multiplier > 0 || !binding.sampling->banned_sequences.empty();
    state.Bind(binding);
    for (int32_t draw = 0; draw < kDraws; ++draw) {
      if (looks_back) state.Bind(binding);  // draws would count as output
      std::vector<float> row = logits;
      ++hits[state.Sample(row, draw).token];
    }
    ExpectFollows(probabilities, hits, kDraws, 3.09, c["params"].dump());
  }
}

// The ends of every range that the door lets in, and beyond what floats hold: a token is drawn.
TEST(StagesExtremesTest, AnyLegalRequestDrawsAToken) {
  const float most = std::numeric_limits<float>::max(), least = 1e-45f;
  std::mt19937 random(8);
  const auto roll = [&](std::vector<float> values) { return values[random() % values.size()]; };
  std::vector<float> row = {9, 3, -2, 0, 8.5f, -1e30f, -kInfinity, 9};
  for (int32_t round = 0; round < 3000; ++round) {
    SamplingParams params;
    params.temperature = roll({0, least, 1e-5f, 1, most});
    params.typical_p = roll({least, 0.5f, 1});
    params.top_n_sigma = roll({0, least, 1, most});
    params.min_p = roll({0, least, 1});
    params.top_p = roll({least, 0.5f, 1});
    params.xtc_probability = roll({0, 1});
    params.xtc_threshold = roll({0, 0.1f, 0.5f, 1});
    params.smoothing_factor = roll({0, least, 1, most});
    params.smoothing_curve = roll({least, 1, 3, 5, most});
    if (random() % 2 == 0) {
      params.dynamic_temperature =
          DynamicTemperature{0, roll({0, least, 1, most}), roll({least, 1, most})};
    }
    params.dry = {.multiplier = roll({0, least, 1, most}), .base = roll({1, 2, most})};
    std::shuffle(params.order.begin(), params.order.end(), random);
    SamplerState state(static_cast<int32_t>(row.size()));
    state.Bind({.slot = SlotId{0},
                .sampling = std::make_shared<SamplingParams>(params),
                .prompt = {0, 1, 0, 1, 0, 1, 0, 1}});
    std::vector<float> logits = row;
    const SampleResult result = state.Sample(logits, 8);
    ASSERT_TRUE(result.finite);
    ASSERT_NE(result.token, 6);
    ASSERT_LT(result.token, 8);
  }
}

TEST(StageMathTest, LogarithmsAndMassesAreThoseOfDoubles) {
  for (uint64_t value = 1; value < uint64_t{1} << 60; value += value / 37 + 1) {
    EXPECT_NEAR(kernels::FixedLog2(value), kernels::kBit * std::log2(static_cast<double>(value)),
                1.0)
        << value;
  }
  uint32_t last = kernels::kUnitMass;
  for (int32_t surprisal = 0; surprisal <= kernels::kMaxSurprisal; surprisal += 7) {
    const uint32_t mass = kernels::MassAt(surprisal);
    EXPECT_LE(mass, last);
    EXPECT_NEAR(mass, 0x1p31 * std::exp2(-surprisal / 32768.0),
                1 + 0x1p-19 * 0x1p31 * std::exp2(-surprisal / 32768.0));
    last = mass;
  }
  EXPECT_LE(last, 1u);
}

// ---- What a sequence looks back at
// ---------------------------------------------------------------

// By the definition, over every pair of places.
std::vector<float> PenaltiesOf(const DryParams& dry, const std::vector<TokenId>& ids,
                               int32_t size) {
  const auto count = static_cast<int32_t>(ids.size());
  const int32_t start = dry.last_n > 0 ? std::max(0, count - dry.last_n) : 0;
  const auto breaks = [&](int32_t end) {
    if (std::find(dry.breaker_ids.begin(), dry.breaker_ids.end(), ids[end - 1]) !=
        dry.breaker_ids.end()) {
      return true;
    }
    for (const SpanningBreaker& b : dry.spanning_breakers) {
      const int32_t head_at = end - 1 - static_cast<int32_t>(b.tail.size());
      if (head_at < 0 || !std::equal(b.tail.begin(), b.tail.end(), ids.begin() + head_at + 1)) {
        continue;
      }
      if (std::find(b.heads.begin(), b.heads.end(), ids[head_at]) != b.heads.end()) return true;
    }
    return false;
  };
  int32_t border = 0;
  for (int32_t end = 1; end <= count; ++end) border = breaks(end) ? end : border;
  std::vector<int32_t> longest(static_cast<size_t>(size), 0);
  for (int32_t at = start; at + 1 < count; ++at) {
    int32_t length = 0;
    while (at - length >= start && count - 1 - length >= std::max(start, border) &&
           ids[at - length] == ids[count - 1 - length]) {
      ++length;
    }
    longest[ids[at + 1]] = std::max(longest[ids[at + 1]], length);
  }
  std::vector<float> penalties(static_cast<size_t>(size), 0.0f);
  for (int32_t id = 0; id < size; ++id) {
    const bool is_breaker =
        std::find(dry.breaker_ids.begin(), dry.breaker_ids.end(), id) != dry.breaker_ids.end();
    if (longest[id] < dry.allowed_length || is_breaker) continue;
    const double power = std::pow(static_cast<double>(dry.base), longest[id] - dry.allowed_length);
    penalties[id] = static_cast<float>(-dry.multiplier * power);
  }
  return penalties;
}

// Also after a preemption in the middle, which binds what has been said so far.
TEST(TokenHistoryTest, RepeatsOfRandomSequencesAreThoseOfTheDefinition) {
  std::mt19937 random(5);
  int32_t penalized = 0;
  for (int32_t round = 0; round < 200; ++round) {
    const int32_t kinds = 2 + static_cast<int32_t>(random() % 4);
    const auto id = [&] { return static_cast<TokenId>(random() % kinds); };
    SamplingParams params;
    params.dry = {.multiplier = 0.7f,
                  .base = 1.1f,
                  .allowed_length = 1 + round % 4,
                  .last_n = round % 3 == 0 ? 15 : 0};
    if (round % 4 == 1) params.dry.breaker_ids = {id()};
    for (int32_t i = 0; i < round % 3; ++i) {
      params.dry.spanning_breakers.push_back({.heads = {id(), id()}, .tail = {id(), id()}});
    }
    std::vector<TokenId> ids;
    TokenHistory history, bound_again;
    history.Bind(params, {});
    for (int32_t step = 0; step < 60; ++step) {
      ids.push_back(id());
      history.Append(ids.back());
      const std::vector<float> expected = PenaltiesOf(params.dry, ids, kinds);
      std::vector<float> logits(static_cast<size_t>(kinds), 0.0f), again = logits;
      history.PenalizeRepeats(logits);
      bound_again.Bind(params, std::span<const TokenId>(ids).first(ids.size() / 2));
      for (size_t i = ids.size() / 2; i < ids.size(); ++i) bound_again.Append(ids[i]);
      bound_again.PenalizeRepeats(again);
      EXPECT_EQ(again, logits);
      for (int32_t i = 0; i < kinds; ++i) {
        ASSERT_NEAR(logits[i], expected[i], 1e-5f * (1 - expected[i])) << round << " " << step;
        penalized += expected[i] < 0;
      }
      int32_t border = 0;
      const Breakers breakers(params.dry);
      for (size_t end = 1; end <= ids.size(); ++end) {
        if (breakers.EndAt(std::span<const TokenId>(ids).first(end)))
          border = static_cast<int32_t>(end);
      }
      EXPECT_EQ(LastBreakerEnd(params.dry, ids), border);
    }
  }
  EXPECT_GT(penalized, 5000);
}

TEST(TokenHistoryTest, NoRepeatBansAToken) {
  SamplingParams params;
  params.dry = {.multiplier = 100, .base = 1e20f, .allowed_length = 1};
  TokenHistory history;
  history.Bind(params, std::vector<TokenId>(3000, 1));
  std::vector<float> logits = {0, 0};
  history.PenalizeRepeats(logits);
  EXPECT_EQ(logits[0], 0);
  EXPECT_EQ(logits[1], -1e30f);
}

// Sequences of random lengths, against the last ids themselves.
TEST(TokenHistoryTest, NoBannedSequenceIsEverCompleted) {
  std::mt19937 random(6);
  const auto id = [&] { return static_cast<TokenId>(random() % 4); };
  for (int32_t round = 0; round < 100; ++round) {
    SamplingParams params;
    for (int32_t i = 0; i < 8; ++i) {
      params.banned_sequences.push_back({id(), id()});
      for (int32_t more = static_cast<int32_t>(random() % 4); more > 0; --more) {
        params.banned_sequences.back().push_back(id());
      }
    }
    TokenHistory history;
    history.Bind(params, {});
    std::vector<TokenId> ids;
    for (int32_t step = 0; step < 40; ++step) {
      std::vector<float> logits(4, 0.0f), expected = logits;
      history.BanCompletions(logits);
      for (const std::vector<TokenId>& banned : params.banned_sequences) {
        const size_t before = banned.size() - 1;
        if (ids.size() >= before && std::equal(banned.begin(), banned.end() - 1,
                                               ids.end() - static_cast<ptrdiff_t>(before))) {
          expected[static_cast<size_t>(banned.back())] = -kInfinity;
        }
      }
      ASSERT_EQ(logits, expected);
      ids.push_back(id());
      history.Append(ids.back());
    }
  }
}

}  // namespace
}  // namespace behemoth::worker
