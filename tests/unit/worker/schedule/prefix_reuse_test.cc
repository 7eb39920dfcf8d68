// A prefix that was computed before is not computed again, and nobody sees a wrong one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/worker/schedule/scheduler_fixture.h"

namespace behemoth::worker {
namespace {

using ::testing::SizeIs;

std::vector<TokenId> Counting(int32_t count, TokenId from = 10) {
  std::vector<TokenId> tokens;
  for (int32_t i = 0; i < count; ++i) tokens.push_back(from + i);
  return tokens;
}

TEST(PrefixReuseTest, AFollowUpTurnComputesOnlyItsNewTokens) {
  SchedulerFixture f({.blocks = 32, .tokens_per_block = 4});
  const auto first = f.Submit({.prompt = Counting(10), .max_new_tokens = 6});
  f.RunUntilIdle();
  std::vector<TokenId> chat = Counting(10);
  chat.insert(chat.end(), f.TokensOf(first).begin(), f.TokensOf(first).end());
  chat.insert(chat.end(), {50, 51, 52});
  const int64_t before = f.runner().tokens();
  const auto second = f.Submit({.prompt = chat, .max_new_tokens = 1});
  f.RunUntilIdle();
  // 15 of the first turn's 16 tokens have keys and values (the last one was never fed): 3 blocks.
  EXPECT_EQ(f.FinishOf(second).cached_tokens, 12);
  EXPECT_EQ(f.runner().tokens() - before, 19 - 12);
  EXPECT_EQ(f.TokensOf(second), f.TokensWhenAlone(second));
  EXPECT_EQ(f.FinishOf(first).cached_tokens, 0);
  EXPECT_EQ(f.observer().cached_tokens, 12);
}

TEST(PrefixReuseTest, ThePromptsLastTokenIsAlwaysComputed) {
  SchedulerFixture f({.blocks = 32, .tokens_per_block = 4});
  f.Submit({.prompt = Counting(8)});
  f.RunUntilIdle();
  const auto again = f.Submit({.prompt = Counting(8)});
  f.RunUntilIdle();
  EXPECT_EQ(f.FinishOf(again).cached_tokens, 4);  // at most one block is computed again
  EXPECT_EQ(f.TokensOf(again), f.TokensWhenAlone(again));
  EXPECT_EQ(f.breach(), "");
}

TEST(PrefixReuseTest, OnlyWholeBlocksAreReused) {
  SchedulerFixture f({.blocks = 32, .tokens_per_block = 4});
  f.Submit({.prompt = Counting(7), .max_new_tokens = 1});
  f.RunUntilIdle();
  const auto again = f.Submit({.prompt = Counting(7), .max_new_tokens = 1});
  f.RunUntilIdle();
  EXPECT_EQ(f.FinishOf(again).cached_tokens, 4);
}

TEST(PrefixReuseTest, AnotherSaltIsAnotherWorld) {
  SchedulerFixture f({.blocks = 32, .tokens_per_block = 4});
  f.Submit({.prompt = Counting(9), .salt = "alice"});
  f.RunUntilIdle();
  const auto bob = f.Submit({.prompt = Counting(9), .salt = "bob"});
  const auto alice = f.Submit({.prompt = Counting(9), .salt = "alice"});
  f.RunUntilIdle();
  EXPECT_EQ(f.FinishOf(bob).cached_tokens, 0);
  EXPECT_EQ(f.FinishOf(alice).cached_tokens, 8);
}

TEST(PrefixReuseTest, RunningRequestsShareBlocks) {
  SchedulerFixture f({.blocks = 32, .tokens_per_block = 4});
  f.Submit({.prompt = Counting(9), .max_new_tokens = 12});
  f.Step();
  const int32_t used = 32 - f.free_blocks();
  EXPECT_EQ(used, 3);
  const auto second = f.Submit({.prompt = Counting(9), .max_new_tokens = 12});
  f.Step();
  EXPECT_EQ(32 - f.free_blocks(), used + 1);
  f.scheduler().CheckInvariants();
  f.RunUntilIdle();
  EXPECT_EQ(f.TokensOf(second), f.TokensWhenAlone(second));
  EXPECT_EQ(f.free_blocks(), 32);
}

TEST(PrefixReuseTest, TheSameComputedAtTheSameTimeIsKeptOnce) {
  SchedulerFixture f({.blocks = 32, .tokens_per_block = 4});
  const auto first = f.Submit({.prompt = Counting(9), .max_new_tokens = 8});
  const auto second = f.Submit({.prompt = Counting(9), .max_new_tokens = 8});
  f.Step();
  EXPECT_THAT(f.last_plan().rows, SizeIs(2));
  EXPECT_EQ(32 - f.free_blocks(), 2 + 1 + 1);
  f.RunUntilIdle();
  EXPECT_EQ(f.TokensOf(first), f.TokensWhenAlone(first));
  EXPECT_EQ(f.TokensOf(second), f.TokensWhenAlone(second));
  f.scheduler().CheckInvariants();
}

TEST(PrefixReuseTest, WhoSharesAPromptMovesToTheKnownBlocksTogether) {
  SchedulerFixture f({.blocks = 32, .tokens_per_block = 2});
  // Both compute {1, 2} in one step; the second request's {3, 4} becomes a child of the first's
  // block, and its follower has to hold that parent too.
  f.Submit({.prompt = {1, 2, 9}, .max_new_tokens = 1});
  f.Submit({.prompt = {1, 2, 3, 4, 5}, .max_new_tokens = 1, .num_sequences = 2});
  f.RunUntilIdle();
  f.scheduler().CheckInvariants();
  EXPECT_EQ(f.breach(), "");
}

TEST(PrefixReuseTest, SwitchedOffNothingIsReused) {
  SchedulerFixture f({.blocks = 32, .tokens_per_block = 4, .prefix_caching = false});
  f.Submit({.prompt = Counting(9)});
  f.RunUntilIdle();
  const auto again = f.Submit({.prompt = Counting(9)});
  f.RunUntilIdle();
  EXPECT_EQ(f.FinishOf(again).cached_tokens, 0);
  EXPECT_EQ(f.scheduler().load().prefix_digest, 0u);
}

TEST(PrefixReuseTest, CachedBlocksGiveWayToRunningSequences) {
  SchedulerFixture f({.blocks = 8, .tokens_per_block = 2});
  for (int i = 0; i < 12; ++i) {
    const auto id = f.Submit({.prompt_tokens = 7, .max_new_tokens = 8});
    f.RunUntilIdle();
    EXPECT_EQ(f.TokensOf(id), f.TokensWhenAlone(id));
  }
  EXPECT_EQ(f.preemptions(), 0);
  EXPECT_EQ(f.free_blocks(), 8);
  f.scheduler().CheckInvariants();
}

TEST(PrefixReuseTest, PromptLogprobsComputeThePromptInFull) {
  SchedulerFixture f({.blocks = 32, .tokens_per_block = 4, .max_step_tokens = 8});
  f.Submit({.prompt = Counting(18)});
  f.RunUntilIdle();
  const auto id = f.Submit({.prompt = Counting(18), .top_logprobs = 0, .prompt_logprobs = true});
  f.RunUntilIdle();
  EXPECT_EQ(f.FinishOf(id).cached_tokens, 0);
  const auto& logprobs = f.heard(id).prompt_logprobs;
  ASSERT_THAT(logprobs, SizeIs(18));
  FakePrefix prefix;
  for (TokenId token : Counting(18)) {
    const size_t position = static_cast<size_t>(token - 10);
    if (position > 0) {
      EXPECT_EQ(logprobs[position].logprob, FakeLogprobs(prefix, token).logprob) << position;
    }
    prefix.Add(token);
  }
  EXPECT_EQ(f.TokensOf(id), f.TokensWhenAlone(id));
}

}  // namespace
}  // namespace behemoth::worker
