// Several ranks on the cpu are one model: logits and greedy tokens of the reference within the same
// bound as one rank's, and the same bits in every run and in every batch. Which numbers of ranks a
// checkpoint allows follows from its KV heads and from its order of inputs.
#include <gmock/gmock.h>

#include <cstring>

#include "tests/golden/worker/golden_checkpoints.h"
#include "worker/ranks.h"

namespace behemoth::worker {
namespace {

using testing::HasSubstr;

Ranks CpuRanks(int32_t size) { return *OpenRanks({.backend = "cpu", .size = size}); }

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), 4 * a.size()) == 0;
}

struct Shared {
  GoldenCheckpoint checkpoint;
  int32_t ranks;
};
void PrintTo(const Shared& shared, std::ostream* out) { *out << shared.checkpoint.name; }

// Two KV heads allow two ranks, tiny's four allow four. sym_channel has one group over all inputs.
std::vector<Shared> All() {
  std::vector<Shared> all;
  for (const GoldenCheckpoint& one : GoldenCheckpoints()) {
    for (const char* name :
         {"sym_g128", "asym_g128", "asym_g64_actorder_static", "sym_g128_mixed", "sym_g32_sharded",
          "sym_channel", "gptq_v1_sym_g128", "gptq_v1_asym_g32", "gptq_v2_asym_g32", "plain_bf16",
          "plain_f16_sharded"}) {
      if (one.name == name) all.push_back({one, 2});
    }
    if (one.name != "tiny") continue;
    for (const int32_t ranks : {2, 4}) all.push_back({one, ranks});
  }
  return all;
}

class RanksGoldenTest : public testing::TestWithParam<Shared> {};

TEST_P(RanksGoldenTest, LogitsAreWithinTheBoundOfTheReference) {
  const Ranks ranks = CpuRanks(GetParam().ranks);
  ExpectLogitsWithinTheBound(GetParam().checkpoint, {.ranks = ranks.places(), .threads = 1},
                             Arithmetic::kFloat);
}

TEST_P(RanksGoldenTest, GreedyTokensAreTheReferenceS) {
  const Ranks ranks = CpuRanks(GetParam().ranks);
  ExpectGreedyTokens(GetParam().checkpoint, {.ranks = ranks.places(), .threads = 1},
                     Arithmetic::kFloat);
}

// Chunks, a batch, another run.
TEST_P(RanksGoldenTest, ARowsBitsAreItsOwn) {
  const Ranks ranks = CpuRanks(GetParam().ranks);
  HarnessOptions options = {
      .folder = GetParam().checkpoint.folder, .ranks = ranks.places(), .threads = 1};
  ModelHarness model(options);
  ASSERT_TRUE(model.ok());
  const auto tokens = SomeTokens(80, model.vocabulary_size(), 1);
  const auto whole = model.LogitsAfter(tokens, 80);
  EXPECT_TRUE(SameBits(model.LogitsAfter(tokens, 33), whole)) << "chunks";
  const auto others = SomeTokens(50, model.vocabulary_size(), 2);
  const auto batch =
      model.Step({{.slot = 1, .tokens = others, .blocks = ModelHarness::Table(8, 1)},
                  {.slot = 0, .tokens = tokens, .blocks = ModelHarness::Table(0, 2)},
                  {.slot = 2, .tokens = others, .blocks = ModelHarness::Table(12, 1)}});
  EXPECT_TRUE(SameBits(batch[1], whole)) << "a batch";
  ModelHarness again(options);
  ASSERT_TRUE(again.ok());
  EXPECT_TRUE(SameBits(again.LogitsAfter(tokens, 80), whole)) << "another run";
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, RanksGoldenTest, testing::ValuesIn(All()),
                         [](const auto& info) {
                           return info.param.checkpoint.name + "_" +
                                  std::to_string(info.param.ranks) + "_ranks";
                         });

// By the key or the module, with the numbers, before a weight is read.
TEST(RanksTest, WhatCannotBeDividedIsRefusedByName) {
  const auto says = [](const std::string& name, int32_t size) {
    for (const GoldenCheckpoint& one : GoldenCheckpoints()) {
      if (one.name != name) continue;
      const Ranks ranks = CpuRanks(size);
      const auto places = ranks.places();
      return std::string(OpenModel({.folder = one.folder}, places).status().message());
    }
    return std::string("no such checkpoint");
  };
  EXPECT_THAT(says("sym_g128", 4), HasSubstr("num_key_value_heads: 2 cannot be divided over 4"));
  EXPECT_THAT(says("tiny", 8), HasSubstr("num_key_value_heads: 4 cannot be divided over 8"));
  EXPECT_THAT(says("gptq_v2_asym_g128_desc_act", 2),
              HasSubstr("model.layers.0.self_attn.o_proj: act-order"));
  EXPECT_THAT(says("asym_g64_actorder_group_bytes", 2), HasSubstr("act-order"));
}

}  // namespace
}  // namespace behemoth::worker
