// A plan as the cuda backend uploads it: which token lies where, what is padded, what may be
// recorded. No GPU: the arrays lie in host memory.
#include "worker/device/cuda/step_inputs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace behemoth::worker::cuda {
namespace {

using testing::ElementsAre;

class StepInputsTest : public testing::Test {
 protected:
  StepInputsTest()
      : memory_(size_t{4} << 20),
        arrays_([this] {
          Arena arena(memory_.data(), memory_.size());
          return StepArrays::Take(arena, kLimits);
        }()),
        inputs_(kLimits, arrays_),
        tops_(static_cast<size_t>(kLimits.max_sequences), -1) {}

  static constexpr RunnerLimits kLimits{.vocabulary_size = 1000,
                                        .context_tokens = 512,
                                        .blocks = 64,
                                        .tokens_per_block = 64,
                                        .max_sequences = 12,
                                        .max_step_tokens = 200,
                                        .pipeline_depth = 2};

  // `tokens` of slot `slot` from `position` on, the last `outputs` of them generated.
  void AddRow(int32_t slot, const std::vector<TokenId>& tokens, int32_t position, int32_t outputs) {
    const int32_t end = position + static_cast<int32_t>(tokens.size());
    const int32_t blocks = (end + 63) / 64;
    plan_.rows.push_back({.first_token = static_cast<int32_t>(plan_.token_ids.size()),
                          .token_count = static_cast<int32_t>(tokens.size()),
                          .position = position,
                          .first_block = static_cast<int32_t>(plan_.block_ids.size()),
                          .block_count = blocks,
                          .slot = SlotId{slot},
                          .output_count = outputs});
    plan_.token_ids.insert(plan_.token_ids.end(), tokens.begin(), tokens.end());
    for (int32_t b = 0; b < blocks; ++b) plan_.block_ids.push_back(BlockId{8 * slot + b});
    plan_.samples.push_back({.row = static_cast<int32_t>(plan_.rows.size()) - 1,
                             .slot = SlotId{slot},
                             .position = end});
  }
  StepShape Load() { return inputs_.Load(plan_, tops_, &receipt_); }
  static std::vector<int32_t> Firsts(const int32_t* array, int32_t count) {
    return {array, array + count};
  }

  std::vector<uint8_t> memory_;
  StepArrays arrays_;
  StepInputs inputs_;
  std::vector<int32_t> tops_;
  StepPlan plan_;
  StepReceipt receipt_;
};

TEST_F(StepInputsTest, DecodesArePaddedAndMayBeRecorded) {
  for (const int32_t slot : {4, 2, 7}) AddRow(slot, {kPendingToken}, 70 + slot, 1);
  const StepShape shape = Load();
  EXPECT_TRUE(shape.recordable);
  EXPECT_TRUE(shape.history_is_settled);
  EXPECT_EQ(shape.tokens, 4);
  EXPECT_EQ(shape.decode_tokens, 4);
  EXPECT_EQ(shape.prefill_tokens, 0);
  EXPECT_EQ(shape.samples, 4);
  EXPECT_THAT(Firsts(arrays_.token_id, 4), ElementsAre(-1, -1, -1, 0));
  EXPECT_THAT(Firsts(arrays_.token_slot, 3), ElementsAre(4, 2, 7));
  EXPECT_THAT(Firsts(arrays_.position, 4), ElementsAre(74, 72, 77, -1));
  EXPECT_THAT(Firsts(arrays_.kv_len, 4), ElementsAre(75, 73, 78, 0));
  EXPECT_THAT(Firsts(arrays_.sample_token, 4), ElementsAre(0, 1, 2, -1));
  EXPECT_THAT(Firsts(arrays_.sample_slot, 4), ElementsAre(4, 2, 7, -1));
  EXPECT_THAT(Firsts(arrays_.tables, 2), ElementsAre(32, 33));
  EXPECT_EQ(receipt_.sample_tops.size(), 3u);
}

TEST_F(StepInputsTest, PaddingNeverExceedsTheSequences) {
  for (int32_t slot = 0; slot < 11; ++slot) AddRow(slot, {5}, 1, 1);
  EXPECT_EQ(Load().tokens, 12);
}

// Generated tokens come first, whichever row they are of: a row that catches up after a preemption
// meets the kernels that its tokens met when they were made.
TEST_F(StepInputsTest, GeneratedTokensComeBeforeThePrompts) {
  AddRow(0, {40}, 9, 1);
  AddRow(1, {10, 11, 12, 13, 14}, 62, 2);
  AddRow(2, {20, 21}, 0, 0);
  const StepShape shape = Load();
  EXPECT_FALSE(shape.recordable);
  EXPECT_FALSE(shape.history_is_settled);
  EXPECT_EQ(shape.tokens, 8);
  EXPECT_EQ(shape.decode_tokens, 3);
  EXPECT_EQ(shape.prefill_tokens, 5);
  EXPECT_EQ(shape.prefill_rows, 2);
  EXPECT_THAT(Firsts(arrays_.token_id, 8), ElementsAre(40, 13, 14, 10, 11, 12, 20, 21));
  EXPECT_THAT(Firsts(arrays_.position, 8), ElementsAre(9, 65, 66, 62, 63, 64, 0, 1));
  EXPECT_THAT(Firsts(arrays_.token_line, 8), ElementsAre(0, 1, 2, 3, 3, 3, 4, 4));
  EXPECT_THAT(Firsts(arrays_.kv_len, 5), ElementsAre(10, 66, 67, 65, 2));
  EXPECT_THAT(Firsts(arrays_.q_start, 3), ElementsAre(0, 3, 5));
  // The last token of each row, wherever it went.
  EXPECT_THAT(Firsts(arrays_.sample_token, 3), ElementsAre(0, 2, 7));
  const int32_t stride = StepInputs::TableStride(kLimits);
  EXPECT_THAT(Firsts(arrays_.tables + 3 * stride, 2), ElementsAre(8, 9));
}

TEST_F(StepInputsTest, PromptTokensAreScoredByTheirSuccessors) {
  tops_[3] = 5;
  AddRow(3, {10, 11, 12}, 0, 0);
  plan_.rows[0].prompt_logprobs = true;
  plan_.rows[0].next_token = 13;
  StepShape shape = Load();
  EXPECT_EQ(shape.scores, 3);
  EXPECT_TRUE(shape.wants_top);
  EXPECT_THAT(Firsts(arrays_.score_token, 3), ElementsAre(0, 1, 2));
  EXPECT_THAT(Firsts(arrays_.score_successor, 3), ElementsAre(11, 12, 13));
  ASSERT_EQ(receipt_.prompts.size(), 1u);
  EXPECT_EQ(receipt_.prompts[0].top, 5);
  plan_.rows[0].next_token = kPendingToken;  // the prompt ends here
  shape = Load();
  EXPECT_EQ(shape.scores, 2);
}

// The masks of those samples that have one lie line behind line; padding has none, also where the
// step before had some.
TEST_F(StepInputsTest, MasksArePackedAndOnlyTheirSamplesPointAtThem) {
  const size_t words = StepInputs::MaskWords(kLimits);
  ASSERT_EQ(words, 32u);  // of 1,000 ids
  for (const int32_t slot : {4, 2, 7}) AddRow(slot, {kPendingToken}, 70, 1);
  plan_.samples[0].mask = std::make_shared<TokenMask>(words, 0xAAu);
  plan_.samples[2].mask = std::make_shared<TokenMask>(words, 0xBBu);
  StepShape shape = Load();
  EXPECT_TRUE(shape.recordable);
  EXPECT_EQ(shape.masks, 2);
  EXPECT_THAT(Firsts(arrays_.mask_line, 4), ElementsAre(0, -1, 1, -1));
  EXPECT_EQ(std::vector<uint32_t>(arrays_.mask, arrays_.mask + words), *plan_.samples[0].mask);
  EXPECT_EQ(std::vector<uint32_t>(arrays_.mask + words, arrays_.mask + 2 * words),
            *plan_.samples[2].mask);
  for (StepSample& sample : plan_.samples) sample.mask.reset();
  shape = Load();
  EXPECT_EQ(shape.masks, 0);
  EXPECT_THAT(Firsts(arrays_.mask_line, 4), ElementsAre(-1, -1, -1, -1));
}

TEST_F(StepInputsTest, LateMasksHaveTheirLinesAndAreFilledInLater) {
  const size_t words = StepInputs::MaskWords(kLimits);
  for (const int32_t slot : {4, 2, 7}) AddRow(slot, {kPendingToken}, 70, 1);
  plan_.samples[0].late_mask = plan_.samples[2].late_mask = true;
  plan_.samples[1].mask = std::make_shared<TokenMask>(words, 0xAAu);
  plan_.late_masks = std::make_shared<MaskGate>();
  EXPECT_EQ(Load().masks, 3);
  EXPECT_THAT(Firsts(arrays_.mask_line, 4), ElementsAre(0, 1, 2, -1));
  EXPECT_THAT(receipt_.late_masks, ElementsAre(0, 2));
  const auto mask = std::make_shared<const TokenMask>(words, 0xBBu);
  inputs_.FillMasks(receipt_.late_masks, {nullptr, mask});
  EXPECT_EQ(TokenMask(arrays_.mask, arrays_.mask + words), TokenMask(words, ~0u));
  EXPECT_EQ(TokenMask(arrays_.mask + words, arrays_.mask + 2 * words), TokenMask(words, 0xAAu));
  EXPECT_EQ(TokenMask(arrays_.mask + 2 * words, arrays_.mask + 3 * words), *mask);
}

TEST_F(StepInputsTest, BlockCopiesArePairs) {
  plan_.copies = {{BlockId{3}, BlockId{9}}, {BlockId{4}, BlockId{1}}};
  const StepShape shape = Load();
  EXPECT_EQ(shape.copies, 2);
  EXPECT_EQ(shape.tokens, 0);
  EXPECT_THAT(Firsts(arrays_.copies, 4), ElementsAre(3, 9, 4, 1));
}

TEST(ArenaTest, MeasuringAndCuttingAgree) {
  const auto take = [](Arena& arena) {
    arena.Take<int32_t>(3);
    return arena.Take<uint8_t>(257);
  };
  Arena measure;
  take(measure);
  EXPECT_EQ(measure.used(), 256u + 512u);
  alignas(256) static uint8_t memory[768];
  Arena arena(memory, sizeof(memory));
  EXPECT_EQ(take(arena), memory + 256);
  EXPECT_FALSE(arena.overflowed());
  EXPECT_EQ(arena.Take<uint8_t>(1), nullptr);
  EXPECT_TRUE(arena.overflowed());
}

}  // namespace
}  // namespace behemoth::worker::cuda
