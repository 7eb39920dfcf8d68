#include "worker/memory_budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace behemoth::worker {
namespace {

constexpr uint64_t kMiB = 1 << 20;

ModelNeeds Needs() {
  return {.weight_bytes = 600 * kMiB,
          .activation_bytes = 100 * kMiB,
          .block_bytes = kMiB,
          .tokens_per_block = 64,
          .blocks_for_one_context = 100};
}

MemoryLimits Memory() {
  return {.total_bytes = 1000 * kMiB, .available_bytes = 1000 * kMiB, .utilization = 0.9};
}

TEST(MemoryBudgetTest, BlocksGetAllThatIsLeft) {
  const auto plan = PlanMemory(Needs(), 6400, 64, Memory(), nullptr);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->blocks, 200);  // 900 - 700
  EXPECT_EQ(plan->planned_bytes(), 900 * kMiB);
  EXPECT_THAT(plan->Describe(), testing::HasSubstr("12800 KV tokens, 2 chats of 6400"));
}

TEST(MemoryBudgetTest, NoMoreIsBoughtThanAllSequencesCouldFill) {
  const auto plan = PlanMemory(Needs(), 6400, 1, Memory(), nullptr);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->blocks, 100);
}

TEST(MemoryBudgetTest, WhatOthersHoldAndEveryLimitCounts) {
  MemoryLimits held = Memory();
  held.available_bytes = 950 * kMiB;
  EXPECT_EQ(PlanMemory(Needs(), 6400, 64, held, nullptr)->blocks, 150);
  MemoryLimits limited = Memory();
  limited.limit_bytes = 820 * kMiB;
  EXPECT_EQ(PlanMemory(Needs(), 6400, 64, limited, nullptr)->blocks, 120);
  MemoryLimits kv = Memory();
  kv.kv_bytes = 110 * kMiB;
  EXPECT_EQ(PlanMemory(Needs(), 6400, 64, kv, nullptr)->blocks, 110);
}

TEST(MemoryBudgetTest, AnImpossiblePlanIsRefusedWithTheNumbersAndWhatWouldFit) {
  MemoryLimits limits = Memory();
  limits.limit_bytes = 750 * kMiB;
  int32_t fitting = -1;
  const auto plan = PlanMemory(Needs(), 6400, 64, limits, &fitting);
  EXPECT_TRUE(absl::IsResourceExhausted(plan.status()));
  EXPECT_THAT(std::string(plan.status().message()), testing::HasSubstr("600 MiB"));
  EXPECT_EQ(fitting, 50 * 64);
  limits.limit_bytes = 650 * kMiB;  // less than weights and activations
  EXPECT_FALSE(PlanMemory(Needs(), 6400, 64, limits, &fitting).ok());
  EXPECT_EQ(fitting, 0);
}

// Every rank has the blocks of the one with the least room, and what does not fit is that one's.
TEST(MemoryBudgetTest, TheSmallestRankDecides) {
  MemoryLimits small = Memory();
  small.limit_bytes = 850 * kMiB;
  const std::vector<MemoryLimits> ranks = {Memory(), small, Memory()};
  const auto plan = PlanMemory(Needs(), 6400, 64, ranks, nullptr);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->blocks, 150);
  EXPECT_EQ(plan->usable_bytes, 850 * kMiB);

  MemoryLimits smaller = Memory();
  smaller.limit_bytes = 740 * kMiB;
  small.limit_bytes = 760 * kMiB;
  int32_t fitting = -1;
  const std::vector<MemoryLimits> two = {Memory(), small, smaller};
  const auto refused = PlanMemory(Needs(), 6400, 64, two, &fitting);
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status()));
  EXPECT_THAT(std::string(refused.status().message()), testing::HasSubstr("rank 1: memory"));
  EXPECT_EQ(fitting, 40 * 64);
}

}  // namespace
}  // namespace behemoth::worker
