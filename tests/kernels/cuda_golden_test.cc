// The worker's cuda backend against Hugging Face transformers: logits and greedy tokens of real
// checkpoints. The bound: tests/golden/worker/golden_checkpoints.h, with the roundings of bf16.
#include <iostream>

#include "tests/golden/worker/golden_checkpoints.h"

namespace behemoth::worker {
namespace {

const Device* Gpu() {
  static const auto device = OpenCuda(0);
  return device.ok() ? device->get() : nullptr;
}

class CudaGoldenTest : public testing::TestWithParam<GoldenCheckpoint> {
 protected:
  void SetUp() override {
    if (Gpu() == nullptr) GTEST_SKIP() << "no CUDA device on this machine";
  }
};

TEST_P(CudaGoldenTest, LogitsAreWithinTheBoundOfTheReference) {
  ExpectLogitsWithinTheBound(GetParam(), {.device = Gpu()}, Arithmetic::kBf16);
}

TEST_P(CudaGoldenTest, GreedyTokensAreTheReferenceSButForNearTies) {
  ModelHarness model({.folder = GetParam().folder, .device = Gpu()});
  ASSERT_TRUE(model.ok());
  NoisyModels noisy(GetParam().folder, Arithmetic::kBf16);
  size_t near_ties = 0, tokens = 0, others = 0;
  for (const GoldenPrompt& prompt : GetParam().Read()) {
    const auto table = ModelHarness::Table(0, 4);
    std::vector<Piece> next = {{.tokens = prompt.ids, .blocks = table}};
    for (size_t step = 0; step < prompt.greedy.size(); ++step, ++tokens) {
      const auto logits = model.Step(next);
      ASSERT_EQ(logits.size(), 1u);
      const TokenId token = model.result().samples[0].token;
      // Two logits, each off by as much as the bound.
      const float limit =
          2 * noisy.Bound(logits[0], [&](ModelHarness& one) { return one.Step(next)[0]; });
      near_ties += prompt.margins[step] <= limit;
      others += token != prompt.greedy[step];
      if (prompt.margins[step] > limit) {
        EXPECT_EQ(token, prompt.greedy[step])
            << "step " << step << " margin " << prompt.margins[step];
      }
      // A near tie may fall either way: go on from the reference's choice.
      next = {{.tokens = {prompt.greedy[step]},
               .position = static_cast<int32_t>(prompt.ids.size() + step),
               .blocks = table,
               .output_count = 1}};
    }
  }
  std::cout << GetParam().name << ": " << tokens << " tokens, " << near_ties
            << " within the bound of a tie, " << others << " fell the other way\n";
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, CudaGoldenTest, testing::ValuesIn(GoldenCheckpoints()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace behemoth::worker
