// Blocks run out, keys compete: who gives way, who is next, and that no token changes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/worker/schedule/scheduler_fixture.h"

namespace behemoth::worker {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

// The ids whose first tokens came, in that order.
std::vector<std::string> OrderOfFirstTokens(SchedulerFixture& f,
                                            const std::vector<std::string>& ids) {
  std::vector<std::string> order;
  do {
    for (const auto& id : ids) {
      const bool known = std::find(order.begin(), order.end(), id) != order.end();
      if (!known && !f.TokensOf(id).empty()) order.push_back(id);
    }
  } while (f.Step());
  return order;
}

// A preempted sequence returns all its blocks and still yields the tokens it would have alone.
TEST(PreemptionTest, PreemptionDoesNotChangeTokens) {
  for (int32_t depth : {1, 2}) {
    // Room for one sequence to the end, not two.
    SchedulerFixture f({.blocks = 4, .tokens_per_block = 2, .pipeline_depth = depth});
    const auto first = f.Submit({.prompt_tokens = 2, .max_new_tokens = 6});
    const auto second = f.Submit({.prompt_tokens = 1, .max_new_tokens = 6});
    f.RunUntilIdle();
    EXPECT_EQ(f.breach(), "");
    EXPECT_EQ(f.TokensOf(first), f.TokensWhenAlone(first));
    EXPECT_EQ(f.TokensOf(second), f.TokensWhenAlone(second));
    EXPECT_GE(f.preemptions(), 1) << "depth " << depth;
    EXPECT_EQ(f.free_blocks(), 4);
    f.scheduler().CheckInvariants();
  }
}

TEST(PreemptionTest, TheYoungestGivesWay) {
  SchedulerFixture f({.blocks = 6, .tokens_per_block = 2});
  const auto first = f.Submit({.prompt_tokens = 2, .max_new_tokens = 10});
  const auto second = f.Submit({.prompt_tokens = 2, .max_new_tokens = 10});
  f.RunUntilIdle();
  EXPECT_EQ(f.FinishOf(first).preemptions, 0);
  EXPECT_GE(f.FinishOf(second).preemptions, 1);
}

TEST(PreemptionTest, TheKeyThatHadMoreGivesWay) {
  SchedulerFixture f({.blocks = 10, .tokens_per_block = 2});
  // "greedy" came first but has had 8 + 2 tokens of prompt when blocks run out.
  const auto greedy = f.Submit({.prompt_tokens = 8, .max_new_tokens = 12, .key = "greedy"});
  const auto modest = f.Submit({.prompt_tokens = 2, .max_new_tokens = 12, .key = "modest"});
  f.RunUntilIdle();
  EXPECT_GE(f.FinishOf(greedy).preemptions, 1);
  EXPECT_EQ(f.FinishOf(modest).preemptions, 0);
  EXPECT_EQ(f.TokensOf(greedy), f.TokensWhenAlone(greedy));
}

TEST(PreemptionTest, LowPriorityGivesWayWithinAKey) {
  SchedulerFixture f({.blocks = 6, .tokens_per_block = 2});
  const auto low = f.Submit({.prompt_tokens = 2, .max_new_tokens = 10, .priority = -1});
  const auto high = f.Submit({.prompt_tokens = 2, .max_new_tokens = 10, .priority = 1});
  f.RunUntilIdle();
  EXPECT_GE(f.FinishOf(low).preemptions, 1);
  EXPECT_EQ(f.FinishOf(high).preemptions, 0);
}

TEST(PreemptionTest, WhatWasComputedIsFoundAgainInTheCache) {
  SchedulerFixture f({.blocks = 8, .tokens_per_block = 2});
  const auto first = f.Submit({.prompt_tokens = 6, .max_new_tokens = 4});
  const auto second = f.Submit({.prompt_tokens = 6, .max_new_tokens = 8});
  f.RunUntilIdle();
  EXPECT_GE(f.preemptions(), 1);
  // 6 + 4 - 1 and 6 + 8 - 1 tokens have keys and values; all that is recomputed comes on top.
  EXPECT_LT(f.runner().tokens(), 9 + 13 + 6);
  EXPECT_EQ(f.TokensOf(first), f.TokensWhenAlone(first));
  EXPECT_EQ(f.TokensOf(second), f.TokensWhenAlone(second));
}

TEST(PreemptionTest, SequencesOfOneRequestMayPreemptEachOther) {
  for (int32_t depth : {1, 2}) {
    SchedulerFixture f({.blocks = 6, .tokens_per_block = 2, .pipeline_depth = depth});
    const auto id = f.Submit({.prompt_tokens = 3, .max_new_tokens = 9, .num_sequences = 3});
    f.RunUntilIdle();
    EXPECT_EQ(f.breach(), "");
    EXPECT_GE(f.preemptions(), 1);
    for (int32_t i = 0; i < 3; ++i) EXPECT_EQ(f.TokensOf(id, i), f.TokensWhenAlone(id, i)) << i;
    EXPECT_EQ(f.free_blocks(), 6);
  }
}

TEST(PreemptionTest, ALeaderPreemptedInItsPrefillStartsAgainForAll) {
  SchedulerFixture f({.blocks = 8, .tokens_per_block = 2, .max_step_tokens = 8});
  const auto chat = f.Submit({.prompt_tokens = 4, .max_new_tokens = 12, .key = "modest"});
  f.Step();
  const auto group =
      f.Submit({.prompt_tokens = 9, .max_new_tokens = 2, .num_sequences = 2, .key = "x"});
  f.RunUntilIdle();
  EXPECT_EQ(f.breach(), "");
  EXPECT_EQ(f.TokensOf(chat), f.TokensWhenAlone(chat));
  for (int32_t i = 0; i < 2; ++i) EXPECT_EQ(f.TokensOf(group, i), f.TokensWhenAlone(group, i));
  f.scheduler().CheckInvariants();
}

TEST(PreemptionTest, ATokenOfAStepInFlightIsNotLost) {
  SchedulerFixture f({.blocks = 4, .tokens_per_block = 2, .pipeline_depth = 2});
  const auto first = f.Submit({.prompt_tokens = 2, .max_new_tokens = 6});
  const auto second = f.Submit({.prompt_tokens = 2, .max_new_tokens = 3});
  bool preempted_in_flight = false;
  for (int step = 0; step < 50; ++step) {
    const int32_t before = f.preemptions();
    while (f.steps_out() < 2 && f.Plan()) {
    }
    preempted_in_flight |= f.preemptions() > before && f.steps_out() > 1;
    if (f.steps_out() == 0) break;
    f.Commit();
  }
  EXPECT_TRUE(preempted_in_flight);
  EXPECT_EQ(f.TokensOf(first), f.TokensWhenAlone(first));
  EXPECT_EQ(f.TokensOf(second), f.TokensWhenAlone(second));
  EXPECT_EQ(f.breach(), "");
}

// ---- Whose turn it is
// ----------------------------------------------------------------------------

TEST(FairnessTest, OneKeyCannotStarveAnother) {
  SchedulerFixture f({.blocks = 64, .max_sequences = 1});
  std::vector<std::string> ids;
  for (int i = 0; i < 20; ++i) ids.push_back(f.Submit({.max_new_tokens = 4, .key = "flood"}));
  f.Step();
  ids.push_back(f.Submit({.max_new_tokens = 4, .key = "guest"}));
  const auto order = OrderOfFirstTokens(f, ids);
  ASSERT_EQ(order.size(), ids.size());
  EXPECT_EQ(order[1], ids.back());  // next after the one that was running
}

TEST(FairnessTest, KeysShareTheWorkNotTheRequests) {
  SchedulerFixture f({.blocks = 256, .max_sequences = 2});
  std::vector<std::string> long_ones, short_ones;
  for (int i = 0; i < 12; ++i) {
    long_ones.push_back(f.Submit({.prompt_tokens = 40, .max_new_tokens = 5, .key = "long"}));
    short_ones.push_back(f.Submit({.prompt_tokens = 5, .max_new_tokens = 5, .key = "short"}));
  }
  while (f.Step() && !f.closed(short_ones.back())) {
  }
  const auto done = std::count_if(long_ones.begin(), long_ones.end(),
                                  [&](const auto& id) { return f.closed(id); });
  // 12 x (5 + 2 x 5) units of work for "short" are 3.6 requests of 40 + 2 x 5.
  EXPECT_GE(done, 3);
  EXPECT_LE(done, 5);
}

TEST(FairnessTest, FirstComeFirstServedWithinAKey) {
  SchedulerFixture f({.blocks = 64, .max_sequences = 1});
  std::vector<std::string> ids;
  for (int i = 0; i < 5; ++i) ids.push_back(f.Submit({.prompt_tokens = 9 - i}));
  EXPECT_EQ(OrderOfFirstTokens(f, ids), ids);
}

TEST(FairnessTest, PriorityGoesFirstWithinAKey) {
  SchedulerFixture f({.blocks = 64, .max_sequences = 1});
  const auto a = f.Submit({.priority = 0});
  const auto b = f.Submit({.priority = -3});
  const auto c = f.Submit({.priority = 7});
  EXPECT_THAT(OrderOfFirstTokens(f, {a, b, c}), ElementsAre(c, a, b));
}

TEST(FairnessTest, WhoIsNextAndDoesNotFitIsNotPassedForever) {
  SchedulerFixture f({.blocks = 8, .tokens_per_block = 2});
  std::vector<std::string> ids = {f.Submit({.prompt_tokens = 4, .max_new_tokens = 6})};
  f.Step();
  ids.push_back(f.Submit({.prompt_tokens = 14, .max_new_tokens = 1}));  // nearly the whole pool
  for (int i = 0; i < 6; ++i) ids.push_back(f.Submit({.prompt_tokens = 2, .max_new_tokens = 6}));
  const auto order = OrderOfFirstTokens(f, ids);
  ASSERT_EQ(order.size(), ids.size());
  EXPECT_EQ(order[1], ids[1]);
  for (const auto& id : ids) EXPECT_EQ(f.TokensOf(id), f.TokensWhenAlone(id)) << id;
}

}  // namespace
}  // namespace behemoth::worker
