#include "proto/support/metrics_server.h"

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>
#include <prometheus/exposer.h>
#include <prometheus/gauge.h>

#include <exception>

#include "proto/support/version.h"

namespace behemoth::support {

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(
    const std::string& listen, std::shared_ptr<prometheus::Registry> registry) {
  auto server = std::unique_ptr<MetricsServer>(new MetricsServer);
  try {
    server->exposer_ = std::make_unique<prometheus::Exposer>(listen);
    // The exposer keeps a weak reference only; the registry is the caller's.
    server->exposer_->RegisterCollectable(registry);
    const auto ports = server->exposer_->GetListeningPorts();
    if (ports.empty()) return absl::UnavailableError(absl::StrCat("metrics ", listen, ": no port"));
    server->port_ = ports.front();
  } catch (const std::exception& error) {
    return absl::UnavailableError(absl::StrCat("metrics ", listen, ": ", error.what()));
  }
  return server;
}

MetricsServer::~MetricsServer() = default;

void RegisterBuildInfo(prometheus::Registry& registry, const std::string& process) {
  prometheus::BuildGauge()
      .Name("behemoth_build_info")
      .Help("What runs here; always 1.")
      .Register(registry)
      .Add({{"process", process}, {"version", Version()}, {"commit", Commit()}})
      .Set(1);
}

}  // namespace behemoth::support
