// A row's logits are its own: the same bits alone, in any batch, in any chunks, in any blocks, on
// any number of threads, and computed again after a preemption.
#include "worker/model/transformer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "tests/unit/worker/model/model_harness.h"

namespace behemoth::worker {
namespace {

HarnessOptions Small(const std::string& variant) {
  return {.folder = BEHEMOTH_SOURCE_DIR "/tests/models/variants/" + variant,
          .context_tokens = 192,
          .max_sequences = 64,
          .max_step_tokens = 256,
          .blocks = 70};
}

// Bits, not values: -0 is not 0 here.
bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), 4 * a.size()) == 0;
}

class InvarianceTest : public testing::TestWithParam<const char*> {};

TEST_P(InvarianceTest, ChunksDoNotChangeALogit) {
  ModelHarness model(Small(GetParam()));
  ASSERT_TRUE(model.ok());
  const auto tokens = SomeTokens(131, model.vocabulary_size(), 1);
  const auto whole = model.LogitsAfter(tokens, 131);
  for (const int32_t chunk : {1, 7, 64, 100}) {
    EXPECT_TRUE(SameBits(model.LogitsAfter(tokens, chunk), whole)) << "chunks of " << chunk;
  }
}

TEST_P(InvarianceTest, ABatchDoesNotChangeALogit) {
  ModelHarness model(Small(GetParam()));
  ASSERT_TRUE(model.ok());
  // Contexts of 1 to 13 tokens, one block each; row r decodes its last token.
  std::vector<std::vector<TokenId>> contexts;
  std::vector<std::vector<float>> alone;
  for (int32_t r = 0; r < 64; ++r) {
    contexts.push_back(SomeTokens(1 + r % 13, model.vocabulary_size(), 100 + r));
    const int32_t last = static_cast<int32_t>(contexts[r].size()) - 1;
    const auto table = ModelHarness::Table(r, 1);
    const std::vector<TokenId> before(contexts[r].begin(), contexts[r].end() - 1);
    if (last > 0) model.Step({{.slot = r, .tokens = before, .blocks = table, .sample = false}});
    alone.push_back(model.Step(
        {{.slot = r, .tokens = {contexts[r].back()}, .position = last, .blocks = table}})[0]);
  }
  for (const int32_t rows : {2, 3, 4, 5, 17, 64}) {
    std::vector<Piece> pieces;
    for (int32_t r = 0; r < rows; ++r) {
      pieces.push_back({.slot = r,
                        .tokens = {contexts[r].back()},
                        .position = static_cast<int32_t>(contexts[r].size()) - 1,
                        .blocks = ModelHarness::Table(r, 1)});
    }
    const auto logits = model.Step(pieces);
    ASSERT_EQ(logits.size(), static_cast<size_t>(rows));
    for (int32_t r = 0; r < rows; ++r) {
      EXPECT_TRUE(SameBits(logits[r], alone[r])) << "row " << r << " of " << rows;
    }
  }
}

TEST_P(InvarianceTest, DecodesBesideAPrefillKeepTheirLogits) {
  ModelHarness model(Small(GetParam()));
  ASSERT_TRUE(model.ok());
  const auto context = SomeTokens(70, model.vocabulary_size(), 7);
  const auto table = ModelHarness::Table(0, 2);
  model.Step({{.tokens = context, .blocks = table, .sample = false}});
  const Piece decode = {.tokens = {5}, .position = 70, .blocks = table};
  const auto alone = model.Step({decode})[0];
  const Piece prefill = {.slot = 1,
                         .tokens = SomeTokens(150, model.vocabulary_size(), 8),
                         .blocks = ModelHarness::Table(10, 3)};
  EXPECT_TRUE(SameBits(model.Step({decode, prefill})[0], alone));
}

// The blocks of a preempted sequence are overwritten by others; it comes back into other blocks, in
// another order, another slot, its output prefilled like a prompt.
TEST_P(InvarianceTest, APreemptionDoesNotChangeALogit) {
  ModelHarness model(Small(GetParam()));
  ASSERT_TRUE(model.ok());
  const auto tokens = SomeTokens(130, model.vocabulary_size(), 3);
  std::vector<float> decoded;
  const auto table = ModelHarness::Table(0, 3);
  model.Step({{.tokens = {tokens.begin(), tokens.begin() + 120}, .blocks = table}});
  for (int32_t at = 120; at < 130; ++at) {
    decoded = model.Step({{.tokens = {tokens[at]}, .position = at, .blocks = table}})[0];
  }
  model.Step({{.slot = 2,
               .tokens = SomeTokens(190, model.vocabulary_size(), 4),
               .blocks = ModelHarness::Table(0, 3)}});
  const std::vector<BlockId> elsewhere = {BlockId{41}, BlockId{2}, BlockId{33}};
  const auto again = model.Step({{.slot = 9, .tokens = tokens, .blocks = elsewhere}})[0];
  EXPECT_TRUE(SameBits(again, decoded));
}

TEST_P(InvarianceTest, ThreadsDoNotChangeALogit) {
  std::vector<std::vector<float>> logits;
  for (const int32_t threads : {1, 2, 3}) {
    HarnessOptions options = Small(GetParam());
    options.threads = threads;
    ModelHarness model(options);
    ASSERT_TRUE(model.ok());
    logits.push_back(model.LogitsAfter(SomeTokens(67, model.vocabulary_size(), 5), 40));
  }
  EXPECT_TRUE(SameBits(logits[0], logits[1]));
  EXPECT_TRUE(SameBits(logits[0], logits[2]));
}

INSTANTIATE_TEST_SUITE_P(Layouts, InvarianceTest,
                         testing::Values("sym_g128_mixed", "gptq_v2_asym_g128_desc_act",
                                         "sym_g64_tied_head128", "plain_f16_sharded"),
                         [](const auto& info) { return std::string(info.param); });

TEST(TransformerTest, ANarrowCacheIsAsInvariantAndNearTheWideOne) {
  HarnessOptions options = Small("sym_g128");
  ModelHarness wide(options);
  options.kv_type = KvType::kBfloat16;
  ModelHarness narrow(options);
  ASSERT_TRUE(wide.ok() && narrow.ok());
  const auto tokens = SomeTokens(90, wide.vocabulary_size(), 6);
  const auto exact = wide.LogitsAfter(tokens, 90);
  const auto rounded = narrow.LogitsAfter(tokens, 90);
  EXPECT_TRUE(SameBits(narrow.LogitsAfter(tokens, 11), rounded));
  EXPECT_FALSE(SameBits(exact, rounded));
  // Keys and values carry 2^-9 relative; averages over 90 of them, two layers.
  float largest = 0, worst = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    largest = std::max(largest, std::fabs(exact[i]));
    worst = std::max(worst, std::fabs(exact[i] - rounded[i]));
  }
  EXPECT_LT(worst, 4 * 0x1p-9f * largest);
}

// Copy on write: the copy holds what the block held, in every layer, and is a block of its own.
TEST(TransformerTest, ACopiedBlockServesLikeTheFirst) {
  ModelHarness model(Small("sym_g128"));
  ASSERT_TRUE(model.ok());
  const auto prompt = SomeTokens(40, model.vocabulary_size(), 9);
  model.Step({{.tokens = prompt, .blocks = ModelHarness::Table(0, 1), .sample = false}});
  const auto expected =
      model.Step({{.tokens = {7}, .position = 40, .blocks = ModelHarness::Table(0, 1)}})[0];
  model.CopyBlock(BlockId{0}, BlockId{5});
  model.Step({{.tokens = {8}, .position = 40, .blocks = ModelHarness::Table(0, 1)}});
  const auto copied = model.Step({{.tokens = {7}, .position = 40, .blocks = {BlockId{5}}}});
  EXPECT_TRUE(SameBits(copied[0], expected));
}

TEST(TransformerTest, APlanBeyondTheLimitsIsAnErrorNotACrash) {
  ModelHarness model(Small("sym_g128"));
  ASSERT_TRUE(model.ok());
  const auto refuses = [&](const Piece& piece) { return absl::IsInternal(model.Verdict({piece})); };
  const auto table = ModelHarness::Table(0, 1);
  EXPECT_FALSE(refuses({.tokens = {1}, .blocks = table}));
  EXPECT_TRUE(refuses({.tokens = {256}, .blocks = table}));
  EXPECT_TRUE(refuses({.tokens = {-2}, .blocks = table}));
  EXPECT_TRUE(refuses({.tokens = {1}, .blocks = {BlockId{70}}}));
  EXPECT_TRUE(refuses({.tokens = {1}, .blocks = {BlockId{-1}}}));
  EXPECT_TRUE(refuses({.tokens = {1}, .position = 64, .blocks = table}));
  EXPECT_TRUE(refuses({.tokens = {1}, .position = 192, .blocks = ModelHarness::Table(0, 4)}));
  EXPECT_TRUE(refuses({.tokens = {1}, .position = -1, .blocks = table}));
  EXPECT_TRUE(refuses({.tokens = {}, .blocks = table}));
  EXPECT_TRUE(refuses({.slot = 64, .tokens = {1}, .blocks = table}));
  EXPECT_TRUE(refuses({.tokens = SomeTokens(257, 256, 1), .blocks = ModelHarness::Table(0, 5)}));
}

}  // namespace
}  // namespace behemoth::worker
