#include "proto/support/metrics_server.h"

#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "proto/support/process_metrics.h"

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

TEST(ProcessMetricsTest, SaysWhatProcSaysAndSkipsWhatIsNoCertificate) {
  std::map<std::string, double> values;
  for (const auto& family : ProcessMetrics({"", "/nowhere", __FILE__}).Collect()) {
    ASSERT_EQ(family.metric.size(), 1u) << family.name;
    values[family.name] = family.type == prometheus::MetricType::Counter
                              ? family.metric[0].counter.value
                              : family.metric[0].gauge.value;
  }
  EXPECT_EQ(values.count("behemoth_certificate_expiry_timestamp_seconds"), 0u);
  EXPECT_GE(values["process_threads"], 1);
  EXPECT_GE(values["process_open_fds"], 3);
  EXPECT_GT(values["process_max_fds"], values["process_open_fds"]);
  EXPECT_GT(values["process_resident_memory_bytes"], 1 << 20);
  EXPECT_GE(values["process_cpu_seconds_total"], 0);
  const double now = absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch());
  EXPECT_LT(std::abs(now - values["process_start_time_seconds"]), 3600);
}

TEST(MetricsServerTest, BuildInfoIsOneFamily) {
  prometheus::Registry registry;
  RegisterBuildInfo(registry, "test");
  ASSERT_EQ(registry.Collect().size(), 1u);
  EXPECT_EQ(registry.Collect()[0].name, "behemoth_build_info");
}

}  // namespace
}  // namespace behemoth::support
