// GET /metrics in Prometheus' text format, on its own port: the process's registry, and what this
// folder counts itself (behemoth_log_dropped_lines_total). Thread-safe.
#pragma once

#include <absl/status/statusor.h>
#include <prometheus/registry.h>

#include <memory>
#include <string>
#include <vector>

namespace prometheus {
class Collectable;
class Exposer;
}  // namespace prometheus

namespace behemoth::support {

class MetricsServer {
 public:
  // `listen` is HOST:PORT, port 0 = any. UNAVAILABLE naming the address if it cannot be bound. Adds
  // what /proc says of this process, and when the certificates of these files end.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(
      const std::string& listen, std::shared_ptr<prometheus::Registry> registry,
      std::vector<std::string> certificate_files = {});
  ~MetricsServer();
  int port() const { return port_; }

 private:
  MetricsServer() = default;
  std::vector<std::shared_ptr<prometheus::Collectable>> own_;
  std::unique_ptr<prometheus::Exposer> exposer_;
  int port_ = 0;
};

// behemoth_build_info{process,version,commit} 1, in every process's registry.
void RegisterBuildInfo(prometheus::Registry& registry, const std::string& process);

}  // namespace behemoth::support
