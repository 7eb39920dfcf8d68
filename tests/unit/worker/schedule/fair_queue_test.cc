#include "worker/schedule/fair_queue.h"

#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

#include <array>

#include "worker/schedule/sequence.h"

namespace behemoth::worker {
namespace {

class FairQueueTest : public ::testing::Test {
 protected:
  // The next in line, taken out.
  int Pop() {
    Sequence* front = queue_.Front();
    if (front == nullptr) return -1;
    const auto index = front - sequences_.data();
    queue_.Remove(shares_[index], entries_[index]);
    return static_cast<int>(index);
  }
  void Push(int index, FairShare* share, int32_t priority = 0) {
    shares_[index] = share;
    entries_[index] = {.priority = priority,
                       .arrival = static_cast<uint64_t>(index),
                       .index = 0,
                       .sequence = &sequences_[index]};
    queue_.Push(share, entries_[index]);
  }

  FairQueue queue_;
  std::array<Sequence, 8> sequences_;
  std::array<FairShare*, 8> shares_;
  std::array<WaitingEntry, 8> entries_;
};

TEST_F(FairQueueTest, FirstComeFirstServedWithinAKey) {
  FairShare* share = queue_.Join("a");
  for (int index : {2, 0, 1}) Push(index, share);
  EXPECT_EQ(queue_.size(), 3);
  for (int index : {0, 1, 2, -1}) EXPECT_EQ(Pop(), index);
}

TEST_F(FairQueueTest, PriorityComesBeforeArrivalWithinAKey) {
  FairShare* share = queue_.Join("a");
  Push(0, share, -1);
  Push(1, share, 0);
  Push(2, share, 5);
  Push(3, share, 5);
  for (int index : {2, 3, 1, 0}) EXPECT_EQ(Pop(), index);
}

TEST_F(FairQueueTest, PriorityBuysNothingAgainstAnotherKey) {
  FairShare* loud = queue_.Join("loud");
  FairShare* quiet = queue_.Join("quiet");
  FairQueue::Charge(loud, 10);
  Push(0, loud, 1000);
  Push(1, quiet, -1000);
  EXPECT_EQ(Pop(), 1);
}

TEST_F(FairQueueTest, TheLeastServedKeyIsNextAndTiesGoByArrival) {
  FairShare* a = queue_.Join("a");
  FairShare* b = queue_.Join("b");
  Push(0, b);
  Push(1, a);
  Push(2, b);
  EXPECT_EQ(Pop(), 0);
  FairQueue::Charge(b, 100);
  EXPECT_EQ(Pop(), 1);
  EXPECT_EQ(Pop(), 2);
}

TEST_F(FairQueueTest, APauseEarnsNoCredit) {
  FairShare* busy = queue_.Join("busy");
  FairShare* lazy = queue_.Join("lazy");
  queue_.Leave(lazy);
  FairQueue::Charge(busy, 5000);
  EXPECT_EQ(queue_.Join("lazy")->virtual_time, 5000);
  EXPECT_EQ(queue_.Join("new")->virtual_time, 5000);
}

TEST_F(FairQueueTest, ALeftDebtIsRememberedUpToALimit) {
  queue_.Join("other");
  FairShare* greedy = queue_.Join("greedy");
  FairQueue::Charge(greedy, 1000);
  queue_.Leave(greedy);
  EXPECT_EQ(queue_.Join("greedy")->virtual_time, 1000);
  FairQueue::Charge(greedy, 10 * FairQueue::kRememberedWork);
  queue_.Leave(greedy);
  EXPECT_EQ(queue_.Join("greedy")->virtual_time, FairQueue::kRememberedWork);
}

TEST_F(FairQueueTest, AloneAndBackAgainStartsWhereItStopped) {
  FairShare* share = queue_.Join("a");
  FairQueue::Charge(share, 700);
  queue_.Leave(share);
  EXPECT_EQ(queue_.Join("b")->virtual_time, 700);
}

TEST_F(FairQueueTest, TheKeyThatLeftLastSetsTheFloorOnlyIfItStoodHighest) {
  FairShare* far = queue_.Join("far");
  FairShare* near = queue_.Join("near");
  FairQueue::Charge(far, 900);
  FairQueue::Charge(near, 100);
  queue_.Leave(far);
  queue_.Leave(near);
  // "far" owes 800 more than "near"; a newcomer owes nothing.
  FairShare* fresh = queue_.Join("fresh");
  EXPECT_EQ(fresh->virtual_time, 100);
  EXPECT_EQ(queue_.Join("far")->virtual_time, 900);
}

TEST_F(FairQueueTest, ForgetsIdleKeysBeyondTheLimit) {
  for (size_t i = 0; i < FairQueue::kMaxIdleShares + 100; ++i) {
    queue_.Leave(queue_.Join(absl::StrCat("key", i)));
  }
  EXPECT_LE(queue_.keys(), FairQueue::kMaxIdleShares + 1);
}

}  // namespace
}  // namespace behemoth::worker
