#include "tokenizer_svc/long_calls.h"

#include <absl/synchronization/notification.h>
#include <gtest/gtest.h>

#include <atomic>

namespace behemoth::tokenizer {
namespace {

TEST(LongCallsTest, BeyondItsBoundACallIsRefusedAndNotRun) {
  std::atomic<int> ran = 0;
  absl::Notification go;
  {
    LongCalls calls(2, 3);
    const auto call = [&] {
      go.WaitForNotification();
      ++ran;
    };
    for (int i = 0; i < 5; ++i) EXPECT_TRUE(calls.TryRun(call)) << i;
    EXPECT_FALSE(calls.TryRun(call));
    go.Notify();
  }
  EXPECT_EQ(ran, 5);  // what was taken is run before the end
}

TEST(LongCallsTest, EndedCallsMakeRoom) {
  std::atomic<int> ran = 0;
  {
    LongCalls calls(1, 0);
    for (int i = 0; i < 100; ++i) {
      absl::Notification done;
      while (!calls.TryRun([&] {
        ++ran;
        done.Notify();
      })) {
      }
      done.WaitForNotification();
    }
  }
  EXPECT_EQ(ran, 100);
}

TEST(LongCallsTest, CallsRunBesideEachOther) {
  LongCalls calls(2, 0);
  absl::Notification first, second;
  EXPECT_TRUE(calls.TryRun([&] { second.WaitForNotification(), first.Notify(); }));
  EXPECT_TRUE(calls.TryRun([&] { second.Notify(), first.WaitForNotification(); }));
}

}  // namespace
}  // namespace behemoth::tokenizer
