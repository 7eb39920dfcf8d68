// The worker's cuda backend on real checkpoints: against transformers' golden logits, against the
// CPU backend, and against itself: a row's bits are its own, whatever it is computed with.
//
// Bound against the reference. Activations are rounded to bf16 about ten times a layer (norm, qkv,
// rotated q and k, probabilities, attention, two residual sums, SiLU, product), each an independent
// relative error of up to u = 2^-9 of the value; along the residual stream they add up like a
// random walk, and the norms carry them on at the same relative size:
//   |logit - golden| <= 6 sqrt(10 L + 4) u max|golden|
// The 6: a logit is a sum of many such errors, so normal around the reference; of a million logits
// the farthest is five standard deviations away, and the largest logit, which stands for the size
// of all, is not always as large.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/unit/worker/model/model_harness.h"

namespace behemoth::worker {
namespace {

using Json = nlohmann::json;

const Device* Gpu() {
  static const auto device = OpenCuda(0);
  return device.ok() ? device->get() : nullptr;
}

std::string Source(const std::string& path) { return std::string(BEHEMOTH_SOURCE_DIR "/") + path; }

struct GoldenCase {
  std::string name, folder, json;
};
GoldenCase Variant(const std::string& name) {
  const std::string folder = Source("tests/models/variants/" + name);
  return {name, folder, folder + "/golden.json"};
}

float Largest(const std::vector<float>& values) {
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::fabs(value));
  return largest;
}

float Bound(const ModelConfig& config, float largest) {
  return 6 * std::sqrt(10.0f * static_cast<float>(config.layers) + 4) * 0x1p-9f * largest;
}

class CudaBackendTest : public testing::Test {
 protected:
  void SetUp() override {
    if (Gpu() == nullptr) GTEST_SKIP() << "no CUDA device on this machine";
  }
};

class CudaGoldenTest : public testing::TestWithParam<GoldenCase> {
 protected:
  void SetUp() override {
    if (Gpu() == nullptr) GTEST_SKIP() << "no CUDA device on this machine";
    std::ifstream file(GetParam().json);
    ASSERT_TRUE(file.good()) << GetParam().json;
    golden_ = Json::parse(file);
  }
  std::vector<float> LogitsOf(const Json& prompt, size_t count) const {
    const std::string& json = GetParam().json;
    std::ifstream file(
        json.substr(0, json.rfind('/') + 1) + prompt["logits"]["file"].get<std::string>(),
        std::ios::binary);
    std::vector<float> floats(count);
    file.seekg(prompt["logits"]["offset"].get<int64_t>());
    file.read(reinterpret_cast<char*>(floats.data()), static_cast<std::streamsize>(4 * count));
    EXPECT_TRUE(file.good());
    return floats;
  }
  Json golden_;
};

TEST_P(CudaGoldenTest, LogitsAreWithinTheBoundOfTheReference) {
  ModelHarness model({.folder = GetParam().folder, .device = Gpu()});
  ASSERT_TRUE(model.ok());
  const size_t vocabulary = static_cast<size_t>(model.vocabulary_size());
  float worst = 0, bound = 0;
  for (const Json& prompt : golden_["prompts"]) {
    const auto ids = prompt["ids"].get<std::vector<TokenId>>();
    const auto positions = prompt["positions"].get<std::vector<int32_t>>();
    const std::vector<float> golden = LogitsOf(prompt, positions.size() * vocabulary);
    for (size_t i = 0; i < positions.size(); ++i) {
      const auto* expected = golden.data() + i * vocabulary;
      const std::vector<float> logits =
          model.LogitsAfter({ids.begin(), ids.begin() + positions[i] + 1}, /*chunk=*/256);
      ASSERT_EQ(logits.size(), vocabulary);
      const float limit = Bound(model.config(), Largest({expected, expected + vocabulary}));
      bound = std::max(bound, limit);
      for (size_t id = 0; id < vocabulary; ++id) {
        const float error = std::fabs(logits[id] - expected[id]);
        worst = std::max(worst, error);
        ASSERT_LE(error, limit) << "position " << positions[i] << " id " << id;
      }
    }
  }
  std::cout << GetParam().name << ": worst error " << worst << ", bound " << bound << "\n";
}

TEST_P(CudaGoldenTest, GreedyTokensAreTheReferenceSButForNearTies) {
  ModelHarness model({.folder = GetParam().folder, .device = Gpu()});
  ASSERT_TRUE(model.ok());
  int32_t near_ties = 0, tokens = 0;
  for (const Json& prompt : golden_["prompts"]) {
    const auto ids = prompt["ids"].get<std::vector<TokenId>>();
    const auto greedy = prompt["greedy"].get<std::vector<TokenId>>();
    const auto margins = prompt["margins"].get<std::vector<float>>();
    const auto table = ModelHarness::Table(0, 4);
    std::vector<std::vector<float>> logits = model.Step({{.tokens = ids, .blocks = table}});
    for (size_t step = 0; step < greedy.size(); ++step, ++tokens) {
      ASSERT_FALSE(logits.empty());
      const TokenId token = model.result().samples[0].token;
      const float limit = 2 * Bound(model.config(), Largest(logits[0]));
      near_ties += margins[step] <= limit;
      if (margins[step] > limit) {
        ASSERT_EQ(token, greedy[step]) << "step " << step << " margin " << margins[step];
      }
      logits = model.Step({{.tokens = {greedy[step]},
                            .position = static_cast<int32_t>(ids.size() + step),
                            .blocks = table,
                            .output_count = 1}});
    }
  }
  std::cout << GetParam().name << ": " << tokens << " tokens, " << near_ties
            << " within the bound of a tie\n";
}

INSTANTIATE_TEST_SUITE_P(
    Checkpoints, CudaGoldenTest,
    testing::Values(GoldenCase{"tiny", Source("tests/models/tiny"),
                               Source("tests/golden/data/tiny_logits.json")},
                    Variant("sym_g128"), Variant("asym_g128"), Variant("asym_g64_actorder_static"),
                    Variant("sym_g128_mixed"), Variant("sym_g32_sharded"),
                    Variant("sym_g64_tied_head128"), Variant("sym_g128_head128"),
                    Variant("sym_channel"), Variant("sym_g32_actorder_group_head128"),
                    Variant("asym_g64_actorder_group_bytes"), Variant("gptq_v1_sym_g128"),
                    Variant("gptq_v1_sym_g64_desc_act_f16"), Variant("gptq_v1_asym_g32"),
                    Variant("gptq_v2_asym_g32"), Variant("gptq_v2_asym_g128_desc_act"),
                    Variant("plain_bf16"), Variant("plain_f16_sharded")),
    [](const auto& info) { return info.param.name; });

// ---- Bits ---------------------------------------------------------------------------------------

constexpr int32_t kSlots = 64;
constexpr int32_t kBlocksEach = 4;

HarnessOptions Wide() {
  return {.folder = Source("tests/models/tiny"),
          .device = Gpu(),
          .max_sequences = kSlots,
          .max_step_tokens = 512,
          .blocks = kSlots * kBlocksEach + 8};
}

std::vector<BlockId> TableOf(int32_t slot) {
  return ModelHarness::Table(slot * kBlocksEach, kBlocksEach);
}

int32_t LengthOf(int32_t slot) { return 5 + 37 * slot % 150; }

std::vector<TokenId> PromptOf(const ModelHarness& model, int32_t slot) {
  return SomeTokens(LengthOf(slot), model.vocabulary_size(), 100 + static_cast<uint32_t>(slot));
}

// Slot `slot`'s prompt, then its `outputs` one by one, alone: the logits after each output.
std::vector<std::vector<float>> Alone(ModelHarness& model, int32_t slot,
                                      const std::vector<TokenId>& outputs) {
  model.Step({{.slot = slot, .tokens = PromptOf(model, slot), .blocks = TableOf(slot)}});
  std::vector<std::vector<float>> logits;
  int32_t position = LengthOf(slot);
  for (const TokenId output : outputs) {
    auto step = model.Step({{.slot = slot,
                             .tokens = {output},
                             .position = position++,
                             .blocks = TableOf(slot),
                             .output_count = 1}});
    if (step.empty()) return {};
    logits.push_back(std::move(step.front()));
  }
  return logits;
}

testing::AssertionResult SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size() || a.empty()) return testing::AssertionFailure() << "sizes";
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0) {
      return testing::AssertionFailure() << "logit " << i << ": " << a[i] << " and " << b[i];
    }
  }
  return testing::AssertionSuccess();
}

TEST_F(CudaBackendTest, ARowsBitsAreTheSameAloneAndInEveryBatch) {
  ModelHarness model(Wide());
  ASSERT_TRUE(model.ok());
  std::vector<std::vector<float>> alone;
  for (int32_t slot = 0; slot < kSlots; ++slot) {
    auto logits = Alone(model, slot, {7 + slot});
    ASSERT_EQ(logits.size(), 1u);
    alone.push_back(std::move(logits.front()));
  }
  for (const int32_t batch : {2, 3, 8, 9, 16, 31, 32, 33, 64}) {
    std::vector<Piece> pieces;
    for (int32_t slot = 0; slot < batch; ++slot) {
      pieces.push_back({.slot = slot,
                        .tokens = {7 + slot},
                        .position = LengthOf(slot),
                        .blocks = TableOf(slot),
                        .output_count = 1});
    }
    const auto together = model.Step(pieces);
    ASSERT_EQ(together.size(), static_cast<size_t>(batch));
    for (int32_t slot = 0; slot < batch; ++slot) {
      ASSERT_TRUE(SameBits(together[static_cast<size_t>(slot)], alone[static_cast<size_t>(slot)]))
          << "batch " << batch << " slot " << slot;
    }
  }
}

TEST_F(CudaBackendTest, ADecodeRowsBitsAreTheSameBesideAPrefill) {
  ModelHarness model(Wide());
  ASSERT_TRUE(model.ok());
  for (const int32_t prompt_tokens : {1, 60, 100, 200}) {
    const auto alone = Alone(model, 0, {11});
    ASSERT_EQ(alone.size(), 1u);
    const std::vector<TokenId> other = SomeTokens(prompt_tokens, model.vocabulary_size(), 9);
    const auto together = model.Step({{.slot = 0,
                                       .tokens = {11},
                                       .position = LengthOf(0),
                                       .blocks = TableOf(0),
                                       .output_count = 1},
                                      {.slot = 1, .tokens = other, .blocks = TableOf(1)}});
    ASSERT_EQ(together.size(), 2u);
    EXPECT_TRUE(SameBits(together[0], alone[0])) << prompt_tokens << " tokens beside it";
    const auto prefill = model.Step({{.slot = 1, .tokens = other, .blocks = TableOf(1)}});
    EXPECT_TRUE(SameBits(together[1], prefill[0])) << prompt_tokens << " tokens of prefill";
  }
}

TEST_F(CudaBackendTest, APromptsBitsDoNotDependOnItsChunks) {
  ModelHarness model(Wide());
  ASSERT_TRUE(model.ok());
  const std::vector<TokenId> tokens = SomeTokens(200, model.vocabulary_size(), 3);
  const std::vector<float> whole = model.LogitsAfter(tokens, 256);
  for (const int32_t chunk : {1, 7, 64, 100, 199}) {
    EXPECT_TRUE(SameBits(model.LogitsAfter(tokens, chunk), whole)) << "chunks of " << chunk;
  }
}

// A preempted sequence comes back as one row: prompt and outputs together.
TEST_F(CudaBackendTest, BitsAreTheSameAfterAPreemption) {
  ModelHarness model(Wide());
  ASSERT_TRUE(model.ok());
  std::vector<TokenId> outputs = SomeTokens(90, model.vocabulary_size(), 21);
  const auto alone = Alone(model, 5, outputs);
  ASSERT_EQ(alone.size(), outputs.size());
  std::vector<TokenId> all = PromptOf(model, 5);
  all.insert(all.end(), outputs.begin(), outputs.end());
  const auto again = model.Step({{.slot = 9,
                                  .tokens = all,
                                  .blocks = TableOf(9),
                                  .output_count = static_cast<int32_t>(outputs.size())}});
  ASSERT_EQ(again.size(), 1u);
  EXPECT_TRUE(SameBits(again[0], alone.back()));
  const TokenId next = model.result().samples[0].token;
  const auto after = model.Step({{.slot = 9,
                                  .tokens = {next},
                                  .position = static_cast<int32_t>(all.size()),
                                  .blocks = TableOf(9),
                                  .output_count = 1}});
  const auto after_alone = model.Step({{.slot = 5,
                                        .tokens = {next},
                                        .position = static_cast<int32_t>(all.size()),
                                        .blocks = TableOf(5),
                                        .output_count = 1}});
  ASSERT_EQ(after.size(), 1u);
  EXPECT_TRUE(SameBits(after[0], after_alone[0]));
}

TEST_F(CudaBackendTest, ACopiedBlockServesAsTheOriginal) {
  ModelHarness model(Wide());
  ASSERT_TRUE(model.ok());
  const std::vector<TokenId> tokens = SomeTokens(100, model.vocabulary_size(), 3);
  model.Step({{.slot = 0, .tokens = tokens, .blocks = TableOf(0)}});
  model.CopyBlock(TableOf(0)[1], TableOf(1)[1]);
  std::vector<std::vector<float>> logits;
  for (const int32_t second : {1, 5}) {
    const std::vector<BlockId> table = {BlockId{0}, BlockId{second}};
    const auto step = model.Step(
        {{.slot = 0, .tokens = {5}, .position = 100, .blocks = table, .output_count = 1}});
    ASSERT_EQ(step.size(), 1u);
    logits.push_back(step[0]);
  }
  EXPECT_TRUE(SameBits(logits[0], logits[1]));
}

TEST_F(CudaBackendTest, AStepBeyondTheLimitsIsRefused) {
  ModelHarness model(Wide());
  ASSERT_TRUE(model.ok());
  EXPECT_TRUE(absl::IsInternal(model.Verdict({{.slot = kSlots, .tokens = {1}, .blocks = {}}})));
  EXPECT_TRUE(
      absl::IsInternal(model.Verdict({{.slot = 0, .tokens = {1}, .blocks = {BlockId{1 << 20}}}})));
}

TEST_F(CudaBackendTest, Fp8KeysAndValuesStayNearBf16Ones) {
  HarnessOptions options = Wide();
  ModelHarness exact(options);
  options.kv_type = KvType::kFp8;
  ModelHarness narrow(options);
  ASSERT_TRUE(exact.ok() && narrow.ok());
  const std::vector<TokenId> tokens = SomeTokens(200, exact.vocabulary_size(), 3);
  const std::vector<float> a = exact.LogitsAfter(tokens, 256), b = narrow.LogitsAfter(tokens, 256);
  ASSERT_EQ(a.size(), b.size());
  double difference = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    size += a[i] * a[i];
  }
  // e4m3 keeps 3 bits: 2^-4 of each key and value, averaged over many.
  EXPECT_LT(std::sqrt(difference / size), 0x1p-4);
  EXPECT_GT(difference, 0);
}

}  // namespace
}  // namespace behemoth::worker
