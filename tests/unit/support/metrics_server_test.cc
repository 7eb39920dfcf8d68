#include "proto/support/metrics_server.h"

#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

namespace behemoth::support {
namespace {

TEST(MetricsServerTest, PortZeroGetsAPortAndATakenOneIsRefused) {
  const auto registry = std::make_shared<prometheus::Registry>();
  RegisterBuildInfo(*registry, "test");
  const auto server = MetricsServer::Start("127.0.0.1:0", registry);
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_GT((*server)->port(), 0);
  const auto second = MetricsServer::Start(absl::StrCat("127.0.0.1:", (*server)->port()), registry);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
}

TEST(MetricsServerTest, BuildInfoIsOneFamily) {
  prometheus::Registry registry;
  RegisterBuildInfo(registry, "test");
  ASSERT_EQ(registry.Collect().size(), 1u);
  EXPECT_EQ(registry.Collect()[0].name, "behemoth_build_info");
}

}  // namespace
}  // namespace behemoth::support
