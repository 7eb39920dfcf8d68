// The CPU's sampler against the reference of the device's (kernels/reference): the same token for
// the same logits, parameters and seed, step after step, whatever the mixture.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "kernels/sampling/sampling.h"
#include "worker/sampling/sampler.h"

namespace behemoth::worker {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A slot of the device as the worker's CUDA backend fills it from a binding.
class DeviceSlot {
 public:
  DeviceSlot(const SlotBinding& binding, int32_t vocabulary)
      : use_(vocabulary), bias_(vocabulary, 0.0f) {
    const SamplingParams& p = *binding.sampling;
    const int32_t prompt = static_cast<int32_t>(binding.prompt.size());
    slot_ = {.temperature = p.temperature,
             .top_p = p.top_p,
             .min_p = p.min_p,
             .top_k = p.top_k,
             .repetition_penalty = p.repetition_penalty,
             .presence_penalty = p.presence_penalty,
             .frequency_penalty = p.frequency_penalty,
             .sequence = binding.sequence,
             .seed = p.seed,
             .min_position = prompt + p.min_tokens,
             .top_logprobs = p.top_logprobs,
             .has_bias = 1,
             .tracks_tokens = 1};
    kernels::reference::TokenUse({.line = use_.data(),
                                  .vocabulary = vocabulary,
                                  .prompt = binding.prompt.data(),
                                  .prompt_count = prompt,
                                  .output = binding.output.data(),
                                  .output_count = static_cast<int>(binding.output.size()),
                                  .stop = p.stop_ids.data(),
                                  .stop_count = static_cast<int>(p.stop_ids.size())});
    if (!p.allowed_ids.empty()) {
      bias_.assign(bias_.size(), -kInfinity);
      for (const TokenId id : p.allowed_ids) bias_[id] = 0;
    }
    for (const TokenBias& b : p.logit_bias) bias_[b.id] += b.bias <= -100 ? -kInfinity : b.bias;
    for (const TokenId id : p.banned_ids) bias_[id] = -kInfinity;
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
                                .out = &out,
                                .rows = 1});
    return out;
  }

 private:
  kernels::SlotSampling slot_;
  std::vector<uint32_t> use_;
  std::vector<float> bias_;
};

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
  return p;
}

class DeviceParityTest : public testing::TestWithParam<int32_t> {};

TEST_P(DeviceParityTest, BothDrawTheSameTokens) {
  const int32_t vocabulary = GetParam();
  std::mt19937 random(static_cast<uint32_t>(vocabulary));
  std::normal_distribution<float> normal(0, 3);
  int32_t sampled = 0;
  for (int32_t request = 0; request < 40; ++request) {
    const auto params = std::make_shared<SamplingParams>(Mixture(random, vocabulary));
    SlotBinding binding = {.slot = SlotId{0}, .sequence = request % 3, .sampling = params};
    for (int32_t i = 0; i < 12; ++i) {
      binding.prompt.push_back(static_cast<TokenId>(random() % vocabulary));
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
      if (request == 7 && step == 3) logits[0] = std::nanf("");
      const int32_t position = static_cast<int32_t>(binding.prompt.size()) + step;
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
  EXPECT_GT(sampled, 40 * 8 / 2);
}
INSTANTIATE_TEST_SUITE_P(Vocabularies, DeviceParityTest, testing::Values(7, 64, 512, 4097));

}  // namespace
}  // namespace behemoth::worker
