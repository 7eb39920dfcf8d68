// Logits and greedy tokens against Hugging Face transformers, over the same dequantized weights, in
// float on both sides. The bound: golden_checkpoints.h.
#include "tests/golden/worker/golden_checkpoints.h"

namespace behemoth::worker {
namespace {

class GoldenTest : public testing::TestWithParam<GoldenCheckpoint> {};

TEST_P(GoldenTest, LogitsAreWithinTheBoundOfTheReference) {
  ExpectLogitsWithinTheBound(GetParam(), {}, Arithmetic::kFloat);
}

TEST_P(GoldenTest, GreedyTokensAreTheReferenceS) {
  ExpectGreedyTokens(GetParam(), {}, Arithmetic::kFloat);
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, GoldenTest, testing::ValuesIn(GoldenCheckpoints()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace behemoth::worker
