#include "tokenizer_svc/config.h"

#include <CLI/CLI.hpp>

namespace behemoth::tokenizer {

void AddFlags(Config& config, support::Flags& flags) {
  auto& app = flags.app();
  app.add_option("--model", config.model, "Folder with tokenizer.json or tokenizer.model")
      ->required();
  app.add_option("--listen", config.listen, "HOST:PORT of gRPC; port 0 = any")
      ->capture_default_str();
  app.add_option("--health-listen", config.health_listen,
                 "HOST:PORT of gRPC health alone, without TLS; empty = none");
  app.add_option("--metrics-listen", config.metrics_listen, "HOST:PORT of /metrics; port 0 = any")
      ->capture_default_str();
  app.add_option("--max-text-bytes", config.limits.max_text_bytes, "Text of one call")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30))
      ->capture_default_str();
  app.add_option("--tls-cert-file", config.tls.cert_file, "PEM chain; turns TLS on");
  app.add_option("--tls-key-file", config.tls.key_file, "PEM key of the certificate");
  app.add_option("--tls-client-ca-file", config.tls.client_ca_file,
                 "Clients must show a certificate signed by it");
  app.add_option("--reflection", config.reflection, "Serve gRPC reflection")->capture_default_str();
  app.add_option("--drain-timeout-s", config.drain_timeout_s, "Time for calls in flight at SIGTERM")
      ->check(CLI::Range(0, 3600))
      ->capture_default_str();
}

}  // namespace behemoth::tokenizer
