// The CPU's sampler against the reference of the device's (kernels/reference): the same token for
// the same logits, parameters and seed, step after step, whatever the mixture.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include "kernels/sampling/sampling.h"
#include "worker/device/cuda/slot_lines.h"
#include "worker/sampling/sampler.h"

namespace behemoth::worker {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A slot of the device as the worker's CUDA backend fills it from a binding.
class DeviceSlot {
 public:
  DeviceSlot(const SlotBinding& binding, int32_t vocabulary)
      : slot_(cuda::SamplingOf(binding)),
        use_(vocabulary),
        bias_(vocabulary, 0.0f),
        history_(kContext),
        breakers_(cuda::BreakerWords(vocabulary)),
        phrases_(kernels::kPhraseWords) {
    cuda::FillBias(*binding.sampling, vocabulary, bias_.data());
    cuda::FillTokenUse(binding, vocabulary, use_.data());
    const size_t known = cuda::FillHistory(binding, history_.data());
    breaker_end_ = cuda::BreakerEnd(*binding.sampling, history_.data(), known);
    cuda::FillBreakers(*binding.sampling, vocabulary, breakers_.data());
    cuda::FillPhrases(*binding.sampling, phrases_.data());
  }

  // `allowed`: empty, or the row's mask.
  kernels::SampleOutput Sample(const std::vector<float>& logits, int32_t position,
                               const std::vector<uint32_t>& allowed) {
    const int32_t row = 0, slot = 0, mask_line = allowed.empty() ? -1 : 0;
    kernels::SampleOutput out;
    kernels::reference::Sample({.logits = logits.data(),
                                .logits_stride = static_cast<int64_t>(logits.size()),
                                .vocabulary = static_cast<int>(logits.size()),
                                .logits_row = &row,
                                .slot = &slot,
                                .position = &position,
                                .sampling = &slot_,
                                .token_use = use_.data(),
                                .bias = bias_.data(),
                                .mask = allowed.data(),
                                .mask_line = &mask_line,
                                .history = history_.data(),
                                .history_stride = kContext,
                                .breaker_end = &breaker_end_,
                                .breakers = breakers_.data(),
                                .phrases = phrases_.data(),
                                .out = &out,
                                .rows = 1});
    return out;
  }

 private:
  static constexpr int64_t kContext = 256;

  const kernels::SlotSampling slot_;
  std::vector<uint32_t> use_;
  std::vector<float> bias_;
  std::vector<int32_t> history_;
  int32_t breaker_end_ = 0;
  std::vector<uint32_t> breakers_;
  std::vector<int32_t> phrases_;
};

using Roll = std::function<float(float low, float high)>;

void MixStages(std::mt19937& random, const Roll& uniform, SamplingParams* p) {
  const auto one_in = [&](uint32_t n) { return random() % n == 0; };
  if (one_in(2)) p->top_n_sigma = uniform(0.2f, 3.0f);
  if (one_in(2)) p->typical_p = uniform(0.05f, 1.0f);
  if (one_in(2)) p->xtc_probability = one_in(2) ? 1.0f : uniform(0.1f, 0.9f);
  p->xtc_threshold = uniform(0.0f, 0.6f);
  if (one_in(2)) p->smoothing_factor = uniform(0.05f, 2.0f);
  p->smoothing_curve = uniform(0.5f, 5.0f);
  if (one_in(3)) {
    const float low = uniform(0.0f, 1.5f);
    p->dynamic_temperature =
        DynamicTemperature{low, low + uniform(0.0f, 2.0f), uniform(0.2f, 3.0f)};
  }
  if (one_in(2)) std::shuffle(p->order.begin(), p->order.end(), random);
}

// Few ids, so that they repeat.
void MixHistory(std::mt19937& random, const Roll& uniform, int32_t vocabulary, SamplingParams* p) {
  const auto id = [&] { return static_cast<TokenId>(random() % std::min(vocabulary, 6)); };
  p->dry = {.multiplier = uniform(0.1f, 3.0f),
            .base = uniform(1.0f, 2.5f),
            .allowed_length = 1 + static_cast<int32_t>(random() % 3),
            .last_n = static_cast<int32_t>(random() % 3) * 10};
  if (random() % 2 == 0) p->dry.breaker_ids = {id()};
  for (uint32_t i = random() % 3; i > 0; --i) {
    p->dry.spanning_breakers.push_back({{id(), id()}, {id(), id()}});
    if (random() % 2 == 0) p->dry.spanning_breakers.back().tail.pop_back();
  }
  for (uint32_t i = random() % 6; i > 0; --i) {
    p->banned_sequences.push_back({id(), id()});
    if (random() % 2 == 0) p->banned_sequences.back().push_back(id());
  }
}

SamplingParams Mixture(std::mt19937& random, int32_t vocabulary) {
  const auto one_in = [&](uint32_t n) { return random() % n == 0; };
  const auto id = [&] { return static_cast<TokenId>(random() % vocabulary); };
  const auto uniform = [&](float low, float high) {
    return low + (high - low) * static_cast<float>(random() % 10001) * 1e-4f;
  };
  SamplingParams p;
  p.seed = (uint64_t{random()} << 32) | random();
  p.temperature = one_in(5) ? 0.0f : uniform(0.05f, 2.5f);
  if (one_in(2)) p.top_p = uniform(0.01f, 1.0f);
  if (one_in(3)) p.top_k = static_cast<int32_t>(random() % 60) + 1;
  if (one_in(3)) p.min_p = uniform(0.0f, 0.4f);
  if (one_in(2)) p.repetition_penalty = uniform(0.7f, 1.6f);
  if (one_in(2)) p.frequency_penalty = uniform(-2.0f, 2.0f);
  if (one_in(2)) p.presence_penalty = uniform(-2.0f, 2.0f);
  if (one_in(4)) p.min_tokens = static_cast<int32_t>(random() % 6);
  for (int32_t i = 0; i < 4; ++i) p.stop_ids.push_back(id());
  for (uint32_t i = random() % 8; i > 0; --i) p.banned_ids.push_back(id());
  if (one_in(4)) {
    for (int32_t i = 0; i < 20; ++i) p.allowed_ids.push_back(id());
  }
  for (uint32_t i = random() % 8; i > 0; --i) {
    const TokenId at = id();
    const bool known = std::any_of(p.logit_bias.begin(), p.logit_bias.end(),
                                   [&](const TokenBias& b) { return b.id == at; });
    if (!known) p.logit_bias.push_back({at, one_in(4) ? -100.0f : uniform(-5, 5)});
  }
  p.top_logprobs = one_in(3) ? 0 : -1;
  if (one_in(2)) MixStages(random, uniform, &p);
  if (one_in(2)) MixHistory(random, uniform, vocabulary, &p);
  return p;
}

class DeviceParityTest : public testing::TestWithParam<int32_t> {};

TEST_P(DeviceParityTest, BothDrawTheSameTokens) {
  const int32_t vocabulary = GetParam();
  std::mt19937 random(static_cast<uint32_t>(vocabulary));
  std::normal_distribution<float> normal(0, 3);
  constexpr int32_t kRequests = 120;
  int32_t sampled = 0;
  for (int32_t request = 0; request < kRequests; ++request) {
    const auto params = std::make_shared<SamplingParams>(Mixture(random, vocabulary));
    SlotBinding binding = {.slot = SlotId{0}, .sequence = request % 3, .sampling = params};
    const int32_t kinds = request % 3 == 0 ? vocabulary : std::min(vocabulary, 4);
    for (int32_t i = 0; i < 30; ++i) {
      binding.prompt.push_back(static_cast<TokenId>(random() % kinds));
    }
    // Every fourth comes back from a preemption, with output of its own.
    for (int32_t i = 0; i < 5 && request % 4 == 1; ++i) {
      binding.output.push_back(static_cast<TokenId>(random() % kinds));
    }
    SamplerState host(vocabulary);
    host.Bind(binding);
    DeviceSlot device(binding, vocabulary);
    for (int32_t step = 0; step < 8; ++step) {
      std::vector<float> logits(vocabulary);
      // Halves make ties; every other request has them.
      for (float& x : logits) {
        x = normal(random);
        if (request % 2 == 1) x = std::round(2 * x) / 2;
      }
      // The few ids of the history are likely, so that the output repeats itself.
      for (int32_t id = 0; id < std::min(vocabulary, 4) && kinds == 4; ++id) logits[id] += 9;
      if (request == 7 && step == 3) logits[0] = std::nanf("");
      const int32_t position =
          static_cast<int32_t>(binding.prompt.size() + binding.output.size()) + step;
      std::vector<uint32_t> allowed;
      if (request % 5 == 2) {  // now and then nothing of a small vocabulary is left
        for (int32_t id = 0; id < vocabulary; id += 32) {
          allowed.push_back(static_cast<uint32_t>(random()) & static_cast<uint32_t>(random()));
        }
      }
      const kernels::SampleOutput expected = device.Sample(logits, position, allowed);
      const SampleResult actual = host.Sample(logits, position, allowed);
      ASSERT_EQ(actual.finite, expected.status == kernels::SampleStatus::kOk);
      if (!actual.finite) break;  // the request has failed
      ASSERT_EQ(actual.token, expected.token) << "request " << request << " step " << step;
      ++sampled;
      if (!actual.logprobs) continue;
      EXPECT_EQ(actual.logprobs->rank, expected.rank);
      EXPECT_NEAR(actual.logprobs->logprob, expected.logprob, 1e-5);
    }
  }
  EXPECT_GT(sampled, kRequests * 8 / 2);
}
INSTANTIATE_TEST_SUITE_P(Vocabularies, DeviceParityTest, testing::Values(7, 64, 512, 4097));

}  // namespace
}  // namespace behemoth::worker
