// What a request hears: stops, finishes, logprobs, progress, and what is not finite.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/worker/schedule/scheduler_fixture.h"

namespace behemoth::worker {
namespace {

using ::testing::Contains;
using ::testing::Each;
using ::testing::Ge;
using ::testing::Not;
using ::testing::SizeIs;

TEST(TokenEventsTest, AStopIdEndsTheSequenceAndIsNotPartOfIt) {
  for (int32_t depth : {1, 2}) {
    SchedulerFixture f({.blocks = 64, .pipeline_depth = depth});
    const auto id = f.Submit({.max_new_tokens = 50, .stop_ids = {2, 900}});
    f.RunUntilIdle();
    EXPECT_EQ(f.TokensOf(id), f.TokensWhenAlone(id));
    EXPECT_THAT(f.TokensOf(id), Not(Contains(2)));
    const FinishEvent finish = f.FinishOf(id);
    EXPECT_EQ(finish.reason, FinishReason::kStop);
    EXPECT_EQ(finish.matched_stop_id, 2);
    EXPECT_EQ(finish.completion_tokens, static_cast<int32_t>(f.TokensOf(id).size()) + 1);
  }
}

TEST(TokenEventsTest, AStopIdIsHandedOutIfAskedFor) {
  SchedulerFixture f({.blocks = 64});
  const auto id = f.Submit({.max_new_tokens = 50, .stop_ids = {2}, .include_stop_id = true});
  f.RunUntilIdle();
  EXPECT_EQ(f.TokensOf(id).back(), 2);
  EXPECT_EQ(f.TokensOf(id), f.TokensWhenAlone(id));
}

TEST(TokenEventsTest, MinTokensHoldsStopsBack) {
  SchedulerFixture f({.blocks = 64});
  const auto id = f.Submit({.max_new_tokens = 50, .stop_ids = {0, 1, 2}, .min_tokens = 9});
  f.RunUntilIdle();
  EXPECT_GE(f.TokensOf(id).size(), 9u);
  EXPECT_EQ(f.TokensOf(id), f.TokensWhenAlone(id));
  EXPECT_EQ(f.FinishOf(id).reason, FinishReason::kStop);
}

TEST(TokenEventsTest, AStopIdAmongTheForcedOnesEndsNothing) {
  SchedulerFixture f({});
  const auto id = f.Submit({.max_new_tokens = 6, .stop_ids = {kFirstForcedId}});
  ASSERT_TRUE(f.scheduler().ForceIds(id, 0, {kFirstForcedId}, f.now).ok());
  f.RunUntilIdle();
  EXPECT_THAT(f.TokensOf(id), SizeIs(6));
}

TEST(TokenEventsTest, EachTokenHasItsLogprobIfAskedFor) {
  SchedulerFixture f({.blocks = 64, .pipeline_depth = 2});
  const auto with = f.Submit({.max_new_tokens = 5, .top_logprobs = 3});
  const auto without = f.Submit({.max_new_tokens = 5});
  f.RunUntilIdle();
  EXPECT_THAT(f.heard(without).logprobs[0], SizeIs(0));
  const auto& logprobs = f.heard(with).logprobs[0];
  ASSERT_THAT(logprobs, SizeIs(5));
  FakePrefix prefix;
  for (TokenId token : f.request(with).prompt) prefix.Add(token);
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(logprobs[i].logprob, FakeLogprobs(prefix, f.TokensOf(with)[i]).logprob);
    prefix.Add(f.TokensOf(with)[i]);
  }
}

TEST(TokenEventsTest, PromptLogprobsComeEvenIfTheFirstTokenStops) {
  SchedulerFixture f({});
  const auto id = f.Submit(
      {.prompt_tokens = 5, .stop_ids = {0, 1, 2, 3}, .top_logprobs = 0, .prompt_logprobs = true});
  f.RunUntilIdle();
  EXPECT_TRUE(f.TokensOf(id).empty());
  EXPECT_EQ(f.FinishOf(id).reason, FinishReason::kStop);
  EXPECT_THAT(f.heard(id).prompt_logprobs, SizeIs(5));
}

TEST(TokenEventsTest, LogitsThatAreNotFiniteFailThatRequestAlone) {
  for (int32_t depth : {1, 2}) {
    SchedulerFixture f({.blocks = 64, .pipeline_depth = depth});
    const auto good = f.Submit({.max_new_tokens = 8});
    const auto bad =
        f.Submit({.prompt = {5, kPoisonId, 6}, .max_new_tokens = 8, .num_sequences = 2});
    f.RunUntilIdle();
    EXPECT_EQ(f.breach(), "");
    EXPECT_TRUE(absl::IsInternal(f.StatusOf(bad)));
    EXPECT_THAT(f.TokensOf(bad), SizeIs(kPoisonedOutput));
    EXPECT_EQ(f.observer().non_finite, 1);
    EXPECT_EQ(f.TokensOf(good), f.TokensWhenAlone(good));
    EXPECT_TRUE(f.StatusOf(good).ok());
    EXPECT_EQ(f.free_blocks(), 64);
  }
}

TEST(TokenEventsTest, AFinishTellsItsTimes) {
  SchedulerFixture f({.max_sequences = 1, .max_step_tokens = 2});
  f.Submit({.prompt_tokens = 2, .max_new_tokens = 3});  // 30 ms
  const auto id = f.Submit({.prompt_tokens = 4, .max_new_tokens = 3});
  f.RunUntilIdle();
  const FinishEvent finish = f.FinishOf(id);
  EXPECT_EQ(finish.queue_time, absl::Milliseconds(30));
  EXPECT_EQ(finish.prefill_time, absl::Milliseconds(20));
  EXPECT_EQ(finish.first_token_time, absl::Milliseconds(50));
  EXPECT_EQ(finish.decode_time, absl::Milliseconds(20));
}

TEST(ProgressTest, ARequestHearsWhereItStands) {
  using State = ProgressEvent::State;
  SchedulerFixture f({.blocks = 64,
                      .max_sequences = 1,
                      .max_step_tokens = 4,
                      .progress_interval = absl::Milliseconds(20)});
  f.Submit({.prompt_tokens = 2, .max_new_tokens = 10, .key = "a"});
  f.Step();
  f.Submit({.prompt_tokens = 2, .max_new_tokens = 1, .key = "a"});
  const auto id = f.Submit({.prompt_tokens = 30, .max_new_tokens = 2, .key = "a"});
  f.RunUntilIdle();
  const auto& progress = f.heard(id).progress;
  EXPECT_EQ(progress.front().state, State::kWaiting);
  EXPECT_EQ(progress.front().queue_position, 1);
  EXPECT_EQ(progress.front().prompt_tokens, 30);
  EXPECT_EQ(progress.back().state, State::kDecoding);
  EXPECT_EQ(progress.back().prefilled_tokens, 30);
  int32_t waited = 0, prefilled = 0;
  for (const ProgressEvent& event : progress) {
    waited += event.state == State::kWaiting;
    if (event.state != State::kPrefilling) continue;
    EXPECT_GE(event.prefilled_tokens, prefilled);
    prefilled = event.prefilled_tokens;
  }
  EXPECT_GE(waited, 4);      // at arrival, then every 20 ms of the 100
  EXPECT_GE(prefilled, 16);  // 4 tokens each 10 ms, told every 20
  EXPECT_LT(prefilled, 30);
  EXPECT_LE(progress.size(), 14u);
}

}  // namespace
}  // namespace behemoth::worker
