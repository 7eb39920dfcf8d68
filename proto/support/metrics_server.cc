#include "proto/support/metrics_server.h"

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>
#include <absl/synchronization/notification.h>
#include <arpa/inet.h>
#include <prometheus/collectable.h>
#include <prometheus/exposer.h>
#include <prometheus/gauge.h>
#include <prometheus/metric_family.h>
#include <sys/socket.h>
#include <unistd.h>

#include <exception>
#include <thread>
#include <vector>

#include "proto/support/log.h"
#include "proto/support/process_metrics.h"
#include "proto/support/version.h"

namespace behemoth::support {
namespace {

// Read when asked: the log is older than any registry and counts for itself.
class LogLines final : public prometheus::Collectable {
 public:
  std::vector<prometheus::MetricFamily> Collect() const override {
    prometheus::ClientMetric dropped;
    dropped.counter.value = static_cast<double>(DroppedLogLines());
    return {{.name = "behemoth_log_dropped_lines_total",
             .help = "Log lines that stderr's reader did not take in time.",
             .type = prometheus::MetricType::Counter,
             .metric = {dropped}}};
  }
};

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(
    const std::string& listen, std::shared_ptr<prometheus::Registry> registry,
    std::vector<std::string> certificate_files) {
  auto server = std::unique_ptr<MetricsServer>(new MetricsServer);
  try {
    server->exposer_ = std::make_unique<prometheus::Exposer>(listen);
    // The exposer keeps weak references only; the registry is the caller's.
    server->exposer_->RegisterCollectable(registry);
    server->own_ = {std::make_shared<LogLines>(),
                    std::make_shared<ProcessMetrics>(std::move(certificate_files))};
    for (const auto& one : server->own_) server->exposer_->RegisterCollectable(one);
    const auto ports = server->exposer_->GetListeningPorts();
    if (ports.empty()) return absl::UnavailableError(absl::StrCat("metrics ", listen, ": no port"));
    server->port_ = ports.front();
  } catch (const std::exception& error) {
    return absl::UnavailableError(absl::StrCat("metrics ", listen, ": ", error.what()));
  }
  return server;
}

// civetweb's accepting thread looks at its stop flag only when poll() returns, every 2 s: a
// connection wakes it.
MetricsServer::~MetricsServer() {
  absl::Notification stopped;
  std::thread waker([&] {
    sockaddr_in self{};
    self.sin_family = AF_INET;
    self.sin_port = htons(static_cast<uint16_t>(port_));
    self.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    do {
      const int knock = socket(AF_INET, SOCK_STREAM, 0);
      if (knock < 0) continue;
      (void)!connect(knock, reinterpret_cast<const sockaddr*>(&self), sizeof(self));
      close(knock);
    } while (!stopped.WaitForNotificationWithTimeout(absl::Milliseconds(10)));
  });
  exposer_.reset();
  stopped.Notify();
  waker.join();
}

void RegisterBuildInfo(prometheus::Registry& registry, const std::string& process) {
  prometheus::BuildGauge()
      .Name("behemoth_build_info")
      .Help("What runs here; always 1.")
      .Register(registry)
      .Add({{"process", process}, {"version", Version()}, {"commit", Commit()}})
      .Set(1);
}

}  // namespace behemoth::support
