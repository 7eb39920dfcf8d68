// Logits and greedy tokens against Hugging Face transformers, over the same dequantized weights, in
// float on both sides. The bound: golden_checkpoints.h.
#include "tests/golden/worker/golden_checkpoints.h"

namespace behemoth::worker {
namespace {

class GoldenTest : public testing::TestWithParam<GoldenCheckpoint> {};

TEST_P(GoldenTest, LogitsAreWithinTheBoundOfTheReference) {
  ExpectLogitsWithinTheBound(GetParam(), nullptr, Arithmetic::kFloat);
}

TEST_P(GoldenTest, GreedyTokensAreTheReferenceS) {
  ModelHarness model({.folder = GetParam().folder});
  ASSERT_TRUE(model.ok());
  NoisyModels noisy(GetParam().folder, Arithmetic::kFloat);
  for (const GoldenPrompt& prompt : GetParam().Read()) {
    const auto table = ModelHarness::Table(0, 4);
    const std::vector<Piece> all = {{.tokens = prompt.ids, .blocks = table}};
    const auto first = model.Step(all);
    // Of the prompt's last row; what a margin may lose at both ends, doubled for the rows behind
    // it.
    const float limit =
        4 * noisy.Bound(first[0], [&](ModelHarness& one) { return one.Step(all)[0]; });
    for (size_t step = 0; step < prompt.greedy.size(); ++step) {
      const TokenId token = model.result().samples[0].token;
      if (prompt.margins[step] > limit) {
        ASSERT_EQ(token, prompt.greedy[step])
            << "step " << step << " margin " << prompt.margins[step];
      }
      // A near tie may fall either way: go on from the reference's choice.
      model.Step({{.tokens = {prompt.greedy[step]},
                   .position = static_cast<int32_t>(prompt.ids.size() + step),
                   .blocks = table}});
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, GoldenTest, testing::ValuesIn(GoldenCheckpoints()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace behemoth::worker
