#include "gateway/upstream/channel.h"

#include <absl/time/clock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>

namespace behemoth::gateway {
namespace {

// A call's last callback may hold one on gRPC's own thread, which a channel's end would join.
TEST(ChannelsTest, NoneEndsBeforeItsLastUserHasLetGo) {
  auto channels = std::make_unique<Channels>();
  auto made = channels->Make("127.0.0.1:1", {});
  ASSERT_TRUE(made.ok()) << made.status();
  std::weak_ptr<grpc::Channel> watched = *made;
  std::atomic<bool> released = false;
  std::thread user([&released, channel = *std::move(made)]() mutable {
    absl::SleepFor(absl::Milliseconds(50));
    released = true;
    channel.reset();
  });
  channels.reset();
  EXPECT_TRUE(released);
  EXPECT_TRUE(watched.expired());
  user.join();
}

}  // namespace
}  // namespace behemoth::gateway
