#include "worker/cache/block_pool.h"

#include <gtest/gtest.h>

#include <csignal>
#include <set>

namespace behemoth::worker {
namespace {

TEST(BlockPoolTest, AReservationSetsBlocksAsideAndTakingHoldsThem) {
  BlockPool pool(4);
  std::optional<Reservation> reservation = pool.Reserve(3);
  ASSERT_TRUE(reservation.has_value());
  EXPECT_EQ(pool.free(), 1);
  EXPECT_EQ(pool.reserved(), 3);
  EXPECT_EQ(pool.held(), 0);
  const BlockId block = reservation->Take();
  EXPECT_EQ(pool.refs(block), 1);
  EXPECT_EQ(pool.reserved(), 2);
  EXPECT_EQ(pool.held(), 1);
  EXPECT_EQ(reservation->remaining(), 2);
  pool.Check();
}

TEST(BlockPoolTest, WhatIsNotTakenGoesBackWithTheReservation) {
  BlockPool pool(4);
  {
    std::optional<Reservation> reservation = pool.Reserve(4);
    reservation->Take();
    EXPECT_EQ(pool.free(), 0);
  }
  EXPECT_EQ(pool.free(), 3);
  EXPECT_EQ(pool.reserved(), 0);
  pool.Check();
}

TEST(BlockPoolTest, AMovedReservationGivesBackOnce) {
  BlockPool pool(2);
  {
    std::optional<Reservation> first = pool.Reserve(2);
    Reservation second = std::move(*first);
    first.reset();
    EXPECT_EQ(pool.reserved(), 2);
    EXPECT_EQ(second.remaining(), 2);
  }
  EXPECT_EQ(pool.free(), 2);
  pool.Check();
}

TEST(BlockPoolTest, TooManyChangesNothing) {
  BlockPool pool(2);
  EXPECT_FALSE(pool.Reserve(3).has_value());
  EXPECT_FALSE(pool.Reserve(-1).has_value());
  EXPECT_EQ(pool.free(), 2);
  const std::optional<Reservation> one = pool.Reserve(1);
  EXPECT_FALSE(pool.Reserve(2).has_value());
  EXPECT_EQ(pool.free(), 1);
}

TEST(BlockPoolTest, TheLastHolderFrees) {
  BlockPool pool(1);
  const BlockId block = pool.Reserve(1)->Take();
  pool.Share(block);
  pool.Release(block);
  EXPECT_EQ(pool.held(), 1);
  EXPECT_EQ(pool.free(), 0);
  pool.Release(block);
  EXPECT_EQ(pool.held(), 0);
  EXPECT_EQ(pool.free(), 1);
  pool.Check();
}

TEST(BlockPoolTest, EveryBlockIsHandedOutOnceAndLowNumbersFirst) {
  BlockPool pool(8);
  std::optional<Reservation> reservation = pool.Reserve(8);
  std::set<BlockId> seen;
  EXPECT_EQ(reservation->Take(), BlockId{0});
  seen.insert(BlockId{0});
  while (reservation->remaining() > 0) EXPECT_TRUE(seen.insert(reservation->Take()).second);
  EXPECT_EQ(seen.size(), 8u);
  EXPECT_EQ(*seen.rbegin(), BlockId{7});
}

TEST(BlockPoolDeathTest, MisuseStopsTheProcess) {
  BlockPool pool(2);
  const BlockId block = pool.Reserve(1)->Take();
  pool.Release(block);
  // The reason goes to the log, which is not what a death test reads.
  const ::testing::KilledBySignal aborted(SIGABRT);
  EXPECT_EXIT(pool.Release(block), aborted, "");
  EXPECT_EXIT(pool.Share(block), aborted, "");
  EXPECT_EXIT(pool.Reserve(0)->Take(), aborted, "");
}

}  // namespace
}  // namespace behemoth::worker
