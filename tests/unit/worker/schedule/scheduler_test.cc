// What a step holds: chunks, decodes, shared prompts, the pipeline.
#include "worker/schedule/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>

#include "tests/unit/worker/schedule/scheduler_fixture.h"

namespace behemoth::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

std::vector<int32_t> RowTokens(const StepPlan& plan) {
  std::vector<int32_t> counts;
  for (const StepRow& row : plan.rows) counts.push_back(row.token_count);
  return counts;
}

TEST(SchedulerTest, OneRequestGetsItsTokensAndItsFinish) {
  SchedulerFixture f({});
  const auto id = f.Submit({.prompt_tokens = 5, .max_new_tokens = 7});
  f.RunUntilIdle();
  EXPECT_EQ(f.breach(), "");
  EXPECT_THAT(f.TokensOf(id), SizeIs(7));
  EXPECT_EQ(f.TokensOf(id), f.TokensWhenAlone(id));
  EXPECT_TRUE(f.StatusOf(id).ok());
  EXPECT_EQ(f.FinishOf(id).reason, FinishReason::kLength);
  EXPECT_EQ(f.FinishOf(id).completion_tokens, 7);
  EXPECT_EQ(f.FinishOf(id).prompt_tokens, 5);
  EXPECT_EQ(f.free_blocks(), 16);
  EXPECT_TRUE(f.scheduler().idle());
  f.scheduler().CheckInvariants();
}

TEST(SchedulerTest, NothingToDoIsAPlanWithoutRows) {
  SchedulerFixture f({});
  EXPECT_FALSE(f.Plan());
  EXPECT_TRUE(f.scheduler().idle());
}

TEST(SchedulerTest, ALongPromptComesInChunksOfTheBudget) {
  SchedulerFixture f({.max_step_tokens = 8});
  const auto id = f.Submit({.prompt_tokens = 20, .max_new_tokens = 2});
  std::vector<int32_t> chunks;
  while (f.Step()) chunks.push_back(f.last_plan().rows[0].token_count);
  EXPECT_THAT(chunks, ElementsAre(8, 8, 4, 1));
  EXPECT_EQ(f.TokensOf(id), f.TokensWhenAlone(id));
  EXPECT_EQ(f.breach(), "");
}

// The chunk is cut so that decodes and chunk fill whole multiples, unless that left less than the
// smallest chunk.
TEST(SchedulerTest, AChunkBesideDecodesFillsWholeMultiplesOfTokens) {
  for (const auto& [multiple, chunk] :
       {std::pair(1, 598), std::pair(32, 574), std::pair(128, 510), std::pair(700, 598)}) {
    SchedulerFixture f({.blocks = 512, .max_step_tokens = 600, .token_multiple = multiple});
    f.Submit({.prompt_tokens = 2, .max_new_tokens = 9});
    f.Submit({.prompt_tokens = 2, .max_new_tokens = 9});
    f.Step();
    f.Submit({.prompt_tokens = 700, .max_new_tokens = 1});
    f.Step();
    EXPECT_THAT(RowTokens(f.last_plan()), ElementsAre(1, 1, chunk)) << multiple;
  }
}

TEST(SchedulerTest, DecodesComeFirstAndPrefillsShareWhatIsLeft) {
  SchedulerFixture f({.blocks = 32, .max_step_tokens = 8});
  f.Submit({.prompt_tokens = 2, .max_new_tokens = 9});
  f.Submit({.prompt_tokens = 2, .max_new_tokens = 9});
  f.Step();
  const auto late = f.Submit({.prompt_tokens = 20, .max_new_tokens = 1});
  f.Step();
  EXPECT_THAT(RowTokens(f.last_plan()), ElementsAre(1, 1, 6));
  f.Step();
  EXPECT_THAT(RowTokens(f.last_plan()), ElementsAre(1, 1, 6));
  f.RunUntilIdle();
  EXPECT_EQ(f.TokensOf(late), f.TokensWhenAlone(late));
  EXPECT_EQ(f.breach(), "");
}

TEST(SchedulerTest, AStepNeverHoldsMoreThanTheBudget) {
  SchedulerFixture f({.blocks = 64, .max_sequences = 4, .max_step_tokens = 5});
  for (int i = 0; i < 12; ++i) f.Submit({.prompt_tokens = 1 + i, .max_new_tokens = 3});
  while (f.Step()) EXPECT_LE(f.last_plan().token_ids.size(), 5u);
  EXPECT_EQ(f.observer().finishes, 12);
  EXPECT_EQ(f.breach(), "");
}

TEST(SchedulerTest, SequencesJoinAndLeaveAtAnyStep) {
  SchedulerFixture f({.blocks = 64});
  std::vector<std::string> ids;
  for (int i = 0; i < 8; ++i) {
    ids.push_back(f.Submit({.prompt_tokens = 1 + i % 3, .max_new_tokens = 8 - i}));
    f.Step();
  }
  f.RunUntilIdle();
  for (const auto& id : ids) EXPECT_EQ(f.TokensOf(id), f.TokensWhenAlone(id)) << id;
  EXPECT_EQ(f.breach(), "");
}

TEST(SchedulerTest, MoreRequestsThanSlotsWaitTheirTurn) {
  SchedulerFixture f({.blocks = 64, .max_sequences = 2});
  std::vector<std::string> ids;
  for (int i = 0; i < 5; ++i) ids.push_back(f.Submit({.max_new_tokens = 3}));
  f.Step();
  EXPECT_EQ(f.scheduler().load().running_sequences, 2);
  EXPECT_EQ(f.scheduler().load().waiting_requests, 3);
  EXPECT_EQ(f.scheduler().load().waiting_tokens, 9);
  f.RunUntilIdle();
  for (const auto& id : ids) EXPECT_EQ(f.TokensOf(id), f.TokensWhenAlone(id)) << id;
  EXPECT_EQ(f.scheduler().load().waiting_tokens, 0);
}

// ---- n sequences of one request
// ------------------------------------------------------------------

TEST(SchedulerTest, SequencesOfARequestShareThePromptBlocks) {
  SchedulerFixture f({.blocks = 16, .tokens_per_block = 2, .prefix_caching = false});
  const auto id = f.Submit({.prompt_tokens = 6, .max_new_tokens = 3, .num_sequences = 4});
  f.Step();
  EXPECT_THAT(f.last_plan().rows, SizeIs(1));  // one row, four samples
  EXPECT_THAT(f.last_plan().samples, SizeIs(4));
  EXPECT_EQ(16 - f.free_blocks(), 3);
  f.Step();
  EXPECT_EQ(16 - f.free_blocks(), 3 + 4);  // one block each for what is their own
  f.scheduler().CheckInvariants();
  f.RunUntilIdle();
  for (int32_t i = 0; i < 4; ++i) EXPECT_EQ(f.TokensOf(id, i), f.TokensWhenAlone(id, i)) << i;
  EXPECT_EQ(f.runner().copies(), 0);  // the prompt ended with its block: nothing to copy
  EXPECT_EQ(f.free_blocks(), 16);
  EXPECT_EQ(f.breach(), "");
}

TEST(SchedulerTest, APartFilledSharedBlockIsCopiedOnWrite) {
  SchedulerFixture f({.blocks = 16, .tokens_per_block = 4, .prefix_caching = false});
  const auto id = f.Submit({.prompt_tokens = 6, .max_new_tokens = 5, .num_sequences = 3});
  f.Step();
  EXPECT_EQ(16 - f.free_blocks(), 2);
  f.Step();
  // The last holder writes in place, the others have copies.
  EXPECT_THAT(f.last_plan().copies, SizeIs(2));
  EXPECT_EQ(16 - f.free_blocks(), 1 + 3);
  f.scheduler().CheckInvariants();
  f.RunUntilIdle();
  for (int32_t i = 0; i < 3; ++i) EXPECT_EQ(f.TokensOf(id, i), f.TokensWhenAlone(id, i)) << i;
  EXPECT_EQ(f.runner().copies(), 2);
  EXPECT_EQ(f.free_blocks(), 16);
  EXPECT_EQ(f.breach(), "");
}

TEST(SchedulerTest, SequencesOfARequestDrawTheirOwnTokens) {
  SchedulerFixture f({.blocks = 64});
  const auto id = f.Submit({.max_new_tokens = 12, .num_sequences = 2});
  f.RunUntilIdle();
  EXPECT_NE(f.TokensOf(id, 0), f.TokensOf(id, 1));
}

TEST(SchedulerTest, ARequestWaitsForSlotsForAllItsSequences) {
  SchedulerFixture f({.blocks = 64, .max_sequences = 4});
  const auto first = f.Submit({.max_new_tokens = 6, .num_sequences = 2});
  const auto second = f.Submit({.max_new_tokens = 2, .num_sequences = 3});
  f.Step();
  EXPECT_THAT(f.last_plan().rows, SizeIs(1));
  f.RunUntilIdle();
  for (int32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(f.TokensOf(second, i), f.TokensWhenAlone(second, i));
  }
  EXPECT_TRUE(f.closed(first));
  EXPECT_EQ(f.breach(), "");
}

// ---- Two steps in flight
// -------------------------------------------------------------------------

TEST(SchedulerTest, ThePipelineChangesNoToken) {
  SchedulerFixture f({.blocks = 64, .pipeline_depth = 2});
  std::vector<std::string> ids;
  for (int i = 0; i < 6; ++i) {
    ids.push_back(f.Submit({.prompt_tokens = 1 + 2 * i, .max_new_tokens = 3 + i, .stop_ids = {0}}));
  }
  f.RunUntilIdle();
  EXPECT_EQ(f.breach(), "");
  for (const auto& id : ids) EXPECT_EQ(f.TokensOf(id), f.TokensWhenAlone(id)) << id;
  EXPECT_EQ(f.free_blocks(), 64);
}

TEST(SchedulerTest, APlanAheadStartsFromAPendingToken) {
  SchedulerFixture f({.pipeline_depth = 2});
  f.Submit({.prompt_tokens = 3, .max_new_tokens = 4});
  f.Plan();
  f.Plan();
  EXPECT_THAT(f.last_plan().token_ids, ElementsAre(kPendingToken));
  EXPECT_EQ(f.last_plan().rows[0].position, 3);
  EXPECT_EQ(f.last_plan().samples[0].position, 4);
}

TEST(SchedulerTest, AStopWastesAtMostOneRow) {
  for (int32_t depth : {1, 2}) {
    SchedulerFixture f({.blocks = 64, .pipeline_depth = depth});
    int64_t tokens = 0;
    std::vector<std::string> ids;
    for (int i = 0; i < 8; ++i) ids.push_back(f.Submit({.max_new_tokens = 20, .stop_ids = {1}}));
    f.RunUntilIdle();
    for (const auto& id : ids) tokens += f.FinishOf(id).completion_tokens;
    EXPECT_GE(f.runner().samples(), tokens);
    EXPECT_LE(f.runner().samples(), tokens + 8 * (depth - 1)) << "depth " << depth;
  }
}

TEST(SchedulerTest, ALengthThatIsKnownWastesNoRow) {
  SchedulerFixture f({.blocks = 64, .pipeline_depth = 2});
  for (int i = 0; i < 4; ++i) f.Submit({.max_new_tokens = 5 + i});
  f.RunUntilIdle();
  EXPECT_EQ(f.runner().samples(), 5 + 6 + 7 + 8);
}

TEST(SchedulerTest, ChunksStayUnderTheInterTokenTargetWhileSomebodyDecodes) {
  SchedulerFixture f(
      {.blocks = 2048, .max_step_tokens = 1024, .itl_target = absl::Milliseconds(20)});
  const auto chat = f.Submit({.prompt_tokens = 2, .max_new_tokens = 300});
  f.Step();
  f.Submit({.prompt_tokens = 3000, .max_new_tokens = 1});
  int32_t widest_late = 0;
  for (int step = 0; !f.closed(chat) && step < 300; ++step) {
    f.Plan();
    // This device takes 10 ms and 0.1 ms per token of a prompt.
    const int32_t prompt = static_cast<int32_t>(f.last_plan().token_ids.size()) - 1;
    f.step_time = absl::Milliseconds(10) + prompt * absl::Microseconds(100);
    if (step >= 10) widest_late = std::max(widest_late, prompt);
    f.Commit();
  }
  EXPECT_GE(widest_late, 79);
  EXPECT_LE(widest_late, 110);  // (20 - 10) / 0.1 = 100
}

TEST(SchedulerTest, NobodyDecodesSoAChunkIsAsLargeAsTheBudget) {
  SchedulerFixture f(
      {.blocks = 2048, .max_step_tokens = 1024, .itl_target = absl::Milliseconds(20)});
  f.Submit({.prompt_tokens = 3000, .max_new_tokens = 1});
  f.Step();
  EXPECT_THAT(RowTokens(f.last_plan()), ElementsAre(1024));
}

}  // namespace
}  // namespace behemoth::worker
