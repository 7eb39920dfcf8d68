// What the outside may do to a request on its way: cancel, abort, deadline, force, extend.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/worker/schedule/scheduler_fixture.h"

namespace behemoth::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

const std::vector<TokenId> kForced = {kFirstForcedId, kFirstForcedId + 1, kFirstForcedId + 2};

// ---- Cancel, abort
// -------------------------------------------------------------------------------

TEST(CancelTest, InEveryStateExactlyOnce) {
  for (int32_t depth : {1, 2}) {
    for (int32_t steps = 0; steps < 12; ++steps) {
      for (bool mid_step : {false, true}) {
        SchedulerFixture f(
            {.blocks = 6, .tokens_per_block = 2, .max_step_tokens = 8, .pipeline_depth = depth});
        const auto other = f.Submit({.prompt_tokens = 2, .max_new_tokens = 8});
        const auto id = f.Submit({.prompt_tokens = 3, .max_new_tokens = 7, .num_sequences = 2});
        for (int32_t step = 0; step < steps; ++step) f.Step();
        if (mid_step && f.steps_out() < depth) f.Plan();
        if (f.closed(id)) continue;
        EXPECT_TRUE(f.scheduler().Cancel(id, f.now).ok());
        f.Drain();
        EXPECT_TRUE(f.StatusOf(id).ok());
        for (int32_t i = 0; i < 2; ++i) {
          const auto& tokens = f.TokensOf(id, i);
          const auto alone = f.TokensWhenAlone(id, i);
          ASSERT_LE(tokens.size(), alone.size());
          EXPECT_TRUE(std::equal(tokens.begin(), tokens.end(), alone.begin()));
          if (tokens.size() < alone.size()) {
            EXPECT_EQ(f.FinishOf(id, i).reason, FinishReason::kCancelled);
          }
        }
        EXPECT_TRUE(absl::IsNotFound(f.scheduler().Cancel(id, f.now)));
        f.scheduler().CheckInvariants();
        f.RunUntilIdle();
        EXPECT_EQ(f.breach(), "") << "depth " << depth << ", step " << steps;
        EXPECT_EQ(f.TokensOf(other), f.TokensWhenAlone(other));
        EXPECT_EQ(f.free_blocks(), 6);
        EXPECT_EQ(f.observer().closes, 2);
      }
    }
  }
}

TEST(CancelTest, AnIdIsFreeAgainAtOnce) {
  SchedulerFixture f({.pipeline_depth = 2});
  const auto id = f.Submit({.prompt_tokens = 3, .max_new_tokens = 8});
  const GenerationRequest same = f.request(id);
  f.Plan();
  f.Plan();
  EXPECT_TRUE(f.scheduler().Cancel(id, f.now).ok());
  f.Drain();
  f.SubmitRequest(same);
  f.RunUntilIdle();
  EXPECT_EQ(f.TokensOf(id), f.TokensWhenAlone(id));
  EXPECT_EQ(f.breach(), "");
  EXPECT_EQ(f.free_blocks(), 16);
}

TEST(AbortTest, ClosesWithTheReasonAndNoFinish) {
  SchedulerFixture f({});
  const auto id = f.Submit({.max_new_tokens = 8});
  f.Step();
  EXPECT_TRUE(f.scheduler().Abort(id, absl::CancelledError("the caller is gone")).ok());
  f.Drain();
  EXPECT_TRUE(absl::IsCancelled(f.StatusOf(id)));
  EXPECT_EQ(f.FinishOf(id).sequence, -1);
  EXPECT_TRUE(absl::IsNotFound(f.scheduler().Abort(id, absl::CancelledError(""))));
  EXPECT_FALSE(f.Step());
  EXPECT_EQ(f.free_blocks(), 16);
}

TEST(AbortTest, AllAtOnceLeavesAnEmptyScheduler) {
  SchedulerFixture f({.max_sequences = 2, .pipeline_depth = 2});
  std::vector<std::string> ids;
  for (int i = 0; i < 5; ++i) ids.push_back(f.Submit({}));
  f.Plan();
  f.Plan();
  f.scheduler().AbortAll(absl::UnavailableError("the device is gone"));
  f.Drain();
  for (const auto& id : ids) EXPECT_TRUE(absl::IsUnavailable(f.StatusOf(id)));
  while (f.steps_out() > 0) f.Commit();
  EXPECT_TRUE(f.scheduler().idle());
  EXPECT_EQ(f.free_blocks(), 16);
  EXPECT_EQ(f.scheduler().load().waiting_requests, 0);
  f.scheduler().CheckInvariants();
}

TEST(QueueTest, EveryRequestLeavesTheCountOfTheQueueOnce) {
  SchedulerFixture f({.max_sequences = 1});
  f.Submit({.prompt_tokens = 3});
  const auto cancelled = f.Submit({.prompt_tokens = 4});
  f.Submit({.prompt_tokens = 5});
  EXPECT_EQ(f.scheduler().TakeDequeued().requests, 0);
  f.Step();
  Dequeued dequeued = f.scheduler().TakeDequeued();
  EXPECT_EQ(dequeued.requests, 1);
  EXPECT_EQ(dequeued.tokens, 3);
  EXPECT_TRUE(f.scheduler().Cancel(cancelled, f.now).ok());
  f.Drain();
  dequeued = f.scheduler().TakeDequeued();
  EXPECT_EQ(dequeued.requests, 1);
  EXPECT_EQ(dequeued.tokens, 4);
  f.RunUntilIdle();
  dequeued = f.scheduler().TakeDequeued();
  EXPECT_EQ(dequeued.requests, 1);
  EXPECT_EQ(dequeued.tokens, 5);
}

// ---- Deadlines
// -----------------------------------------------------------------------------------

TEST(DeadlineTest, PassesInTheQueue) {
  SchedulerFixture f({.max_sequences = 1});
  const auto running = f.Submit({.max_new_tokens = 20});
  const auto waiting = f.Submit({.deadline = f.now + absl::Milliseconds(35)});
  EXPECT_EQ(f.scheduler().next_deadline(), f.now + absl::Milliseconds(35));
  for (int step = 0; step < 3; ++step) f.Step();
  EXPECT_FALSE(f.closed(waiting));
  f.Step();
  f.Step();
  EXPECT_TRUE(absl::IsDeadlineExceeded(f.StatusOf(waiting)));
  EXPECT_TRUE(f.TokensOf(waiting).empty());
  EXPECT_EQ(f.scheduler().next_deadline(), absl::InfiniteFuture());
  f.RunUntilIdle();
  EXPECT_EQ(f.TokensOf(running), f.TokensWhenAlone(running));
}

TEST(DeadlineTest, PassesWhileRunning) {
  SchedulerFixture f({.blocks = 32, .pipeline_depth = 2});
  const auto id = f.Submit({.max_new_tokens = 20, .deadline = f.now + absl::Milliseconds(45)});
  f.RunUntilIdle();
  EXPECT_TRUE(absl::IsDeadlineExceeded(f.StatusOf(id)));
  EXPECT_GE(f.TokensOf(id).size(), 3u);
  EXPECT_LE(f.TokensOf(id).size(), 5u);
  EXPECT_EQ(f.free_blocks(), 32);
}

TEST(DeadlineTest, ThatIsOverAtArrivalComputesNothing) {
  SchedulerFixture f({});
  const auto id = f.Submit({.deadline = f.now - absl::Seconds(1)});
  EXPECT_FALSE(f.Step());
  EXPECT_TRUE(absl::IsDeadlineExceeded(f.StatusOf(id)));
}

// ---- Forced ids
// ----------------------------------------------------------------------------------

// The text goes on from the forced ids as if the model had said them.
void ExpectForcedAt(const SchedulerFixture& f, const std::string& id, int32_t sequence = 0) {
  const GenerationRequest& request = f.request(id);
  FakePrefix prefix;
  for (TokenId token : request.prompt) prefix.Add(token);
  FakeSampler sampler{.sampling = &request.sampling, .sequence = sequence};
  int32_t position = static_cast<int32_t>(request.prompt.size());
  size_t forced = 0;
  for (TokenId token : f.TokensOf(id, sequence)) {
    if (token >= kFirstForcedId) {
      ASSERT_LT(forced, kForced.size());
      EXPECT_EQ(token, kForced[forced++]);
    } else {
      EXPECT_TRUE(forced == 0 || forced == kForced.size()) << "forced ids come together";
      EXPECT_EQ(token, sampler.Sample(prefix, position).token) << "position " << position;
    }
    prefix.Add(token);
    sampler.Saw(token);
    ++position;
  }
  EXPECT_EQ(forced, kForced.size());
}

TEST(ForceIdsTest, InEveryStateTheTextGoesOnFromThem) {
  for (int32_t depth : {1, 2}) {
    for (int32_t calls = 0; calls < 30; ++calls) {
      SchedulerFixture f({.blocks = 9,
                          .tokens_per_block = 2,
                          .max_sequences = 4,
                          .max_step_tokens = 4,
                          .pipeline_depth = depth});
      f.Submit({.prompt_tokens = 2, .max_new_tokens = 12, .key = "other"});
      const auto id = f.Submit({.prompt_tokens = 7, .max_new_tokens = 10});
      // Half steps, so that every number of steps is out at some time.
      for (int32_t call = 0; call < calls && !f.closed(id); ++call) {
        if (f.steps_out() < depth && f.Plan()) continue;
        if (f.steps_out() > 0) f.Commit();
      }
      if (f.closed(id) || f.TokensOf(id).size() > 5) continue;
      const size_t before = f.TokensOf(id).size();
      ASSERT_TRUE(f.scheduler().ForceIds(id, 0, kForced, f.now).ok());
      f.Drain();
      f.scheduler().CheckInvariants();
      f.RunUntilIdle();
      ASSERT_EQ(f.breach(), "") << "depth " << depth << ", call " << calls;
      ExpectForcedAt(f, id);
      EXPECT_THAT(f.TokensOf(id), SizeIs(10));
      const auto first = std::find(f.TokensOf(id).begin(), f.TokensOf(id).end(), kFirstForcedId);
      EXPECT_LE(first - f.TokensOf(id).begin(), static_cast<int64_t>(before) + depth);
      EXPECT_EQ(f.free_blocks(), 9);
    }
  }
}

TEST(ForceIdsTest, OnASharedPromptTheyComeAfterTheFirstOwnToken) {
  for (int32_t sequence : {0, 1}) {
    SchedulerFixture f({.blocks = 32});
    const auto id = f.Submit({.prompt_tokens = 5, .max_new_tokens = 8, .num_sequences = 2});
    ASSERT_TRUE(f.scheduler().ForceIds(id, sequence, kForced, f.now).ok());
    f.RunUntilIdle();
    EXPECT_EQ(f.breach(), "");
    ExpectForcedAt(f, id, sequence);
    EXPECT_EQ(f.TokensOf(id, sequence)[1], kFirstForcedId);
    EXPECT_EQ(f.TokensOf(id, 1 - sequence), f.TokensWhenAlone(id, 1 - sequence));
  }
}

TEST(ForceIdsTest, MoreThanMaxTokensEndByLengthInEveryState) {
  for (int32_t steps = 0; steps < 6; ++steps) {
    SchedulerFixture f({.blocks = 16, .max_step_tokens = 8});
    const auto id = f.Submit({.prompt_tokens = 20, .max_new_tokens = 3});
    for (int32_t step = 0; step < steps; ++step) f.Step();
    const absl::Status forced = f.scheduler().ForceIds(id, 0, kForced, f.now);
    EXPECT_EQ(forced.ok(), steps < 5) << forced;
    f.Drain();
    f.RunUntilIdle();
    EXPECT_EQ(f.breach(), "");
    EXPECT_THAT(f.TokensOf(id), SizeIs(3));
    EXPECT_EQ(f.FinishOf(id).reason, FinishReason::kLength);
    EXPECT_GE(f.FinishOf(id).prefill_time, absl::ZeroDuration());
    EXPECT_EQ(f.free_blocks(), 16);
    f.scheduler().CheckInvariants();
  }
}

TEST(ForceIdsTest, PromptLogprobsAreStillComplete) {
  SchedulerFixture f({.blocks = 16, .max_step_tokens = 8});
  const auto id = f.Submit(
      {.prompt_tokens = 12, .max_new_tokens = 6, .top_logprobs = 0, .prompt_logprobs = true});
  f.Step();
  ASSERT_TRUE(f.scheduler().ForceIds(id, 0, kForced, f.now).ok());
  f.RunUntilIdle();
  EXPECT_EQ(f.breach(), "");
  EXPECT_THAT(f.heard(id).prompt_logprobs, SizeIs(12));
  EXPECT_THAT(f.heard(id).logprobs[0], SizeIs(6));
  EXPECT_EQ(f.heard(id).logprobs[0][1].rank, 0);  // forced: no distribution stands behind it
}

TEST(ForceIdsTest, WrongCallsChangeNothing) {
  SchedulerFixture f({});
  const auto id = f.Submit({.max_new_tokens = 4});
  EXPECT_TRUE(absl::IsNotFound(f.scheduler().ForceIds("nobody", 0, kForced, f.now)));
  EXPECT_TRUE(absl::IsInvalidArgument(f.scheduler().ForceIds(id, 1, kForced, f.now)));
  EXPECT_TRUE(absl::IsInvalidArgument(f.scheduler().ForceIds(id, -1, kForced, f.now)));
  EXPECT_TRUE(absl::IsInvalidArgument(f.scheduler().ForceIds(id, 0, {}, f.now)));
  EXPECT_TRUE(absl::IsInvalidArgument(
      f.scheduler().ForceIds(id, 0, std::vector<TokenId>(33, TokenId{kFirstForcedId}), f.now)));
  f.RunUntilIdle();
  EXPECT_EQ(f.TokensOf(id), f.TokensWhenAlone(id));
}

// ---- More tokens
// ---------------------------------------------------------------------------------

TEST(ExtendMaxTokensTest, TheTextGoesOn) {
  for (int32_t depth : {1, 2}) {
    for (int32_t steps = 0; steps < 4; ++steps) {
      SchedulerFixture f({.pipeline_depth = depth});
      const auto id = f.Submit({.prompt_tokens = 3, .max_new_tokens = 4});
      for (int32_t step = 0; step < steps; ++step) f.Step();
      ASSERT_FALSE(f.closed(id));
      EXPECT_TRUE(f.scheduler().ExtendMaxTokens(id, 5).ok());
      f.RunUntilIdle();
      EXPECT_EQ(f.breach(), "");
      GenerationRequest longer = f.request(id);
      longer.max_tokens = 9;
      EXPECT_EQ(f.TokensOf(id), RunAlone(longer).tokens);
    }
  }
}

TEST(ExtendMaxTokensTest, TheContextIsTheLimit) {
  SchedulerFixture f({.blocks = 16, .tokens_per_block = 2, .context_tokens = 20});
  const auto id = f.Submit({.prompt_tokens = 3, .max_new_tokens = 4});
  EXPECT_TRUE(absl::IsInvalidArgument(f.scheduler().ExtendMaxTokens(id, 14)));
  EXPECT_TRUE(absl::IsInvalidArgument(f.scheduler().ExtendMaxTokens(id, 0)));
  EXPECT_TRUE(absl::IsInvalidArgument(f.scheduler().ExtendMaxTokens(id, -1)));
  EXPECT_TRUE(absl::IsNotFound(f.scheduler().ExtendMaxTokens("nobody", 1)));
  EXPECT_TRUE(f.scheduler().ExtendMaxTokens(id, 13).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(f.scheduler().ExtendMaxTokens(id, 1)));
  f.RunUntilIdle();
  EXPECT_THAT(f.TokensOf(id), SizeIs(17));
}

}  // namespace
}  // namespace behemoth::worker
