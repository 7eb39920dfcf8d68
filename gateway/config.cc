#include "gateway/config.h"

#include <absl/strings/match.h>

#include <CLI/CLI.hpp>

namespace behemoth::gateway {
namespace {

void DeclareLimits(Config& config, CLI::App& app) {
  HttpLimits& http = config.http.limits;
  app.add_option("--max-body-bytes", http.parser.body_bytes, "Largest request body")
      ->check(CLI::Range(1024, 1 << 30));
  app.add_option("--max-header-bytes", http.parser.header_bytes, "Largest request head")
      ->check(CLI::Range(1024, 1 << 20));
  app.add_option("--max-headers", http.parser.header_count, "Most headers of a request")
      ->check(CLI::Range(8, 10000));
  app.add_option("--max-connections", http.max_connections, "Open client connections")
      ->check(CLI::Range(1, 1'000'000));
  app.add_option("--head-timeout-ms", http.head_timeout_ms, "For a request's head to arrive")
      ->check(CLI::Range(100, 600'000));
  app.add_option("--body-timeout-ms", http.body_timeout_ms, "For a request's body to arrive")
      ->check(CLI::Range(100, 3'600'000));
  app.add_option("--idle-timeout-ms", http.idle_timeout_ms, "Keep-alive without a request")
      ->check(CLI::Range(100, 3'600'000));
  app.add_option("--write-timeout-ms", http.write_timeout_ms, "A reader slower than this is cut")
      ->check(CLI::Range(100, 3'600'000));
  app.add_option("--stream-queue-bytes", http.queue_bytes, "Unsent bytes of one stream")
      ->check(CLI::Range(64 << 10, 1 << 30));
  AdmissionLimits& admission = config.admission;
  app.add_option("--max-in-flight", admission.max_in_flight, "Requests running and waiting")
      ->check(CLI::Range(1, 1'000'000));
  app.add_option("--key-in-flight", admission.key_in_flight, "The same for one API key; 0 = off")
      ->check(CLI::Range(0, 1'000'000));
  app.add_option("--key-requests-per-minute", admission.key_requests_per_minute, "0 = off")
      ->check(CLI::Range(0, 1'000'000));
  app.add_option("--request-timeout-s", config.request_timeout_s, "Longest life of a request")
      ->check(CLI::Range(1, 86'400));
  app.add_option("--drain-timeout-s", config.drain_timeout_s, "For admitted requests at the end")
      ->check(CLI::Range(0, 86'400));
}

}  // namespace

void DeclareFlags(Config& config, support::Flags& flags) {
  CLI::App& app = flags.app();
  app.option_defaults()->always_capture_default();
  app.add_option("--tokenizer", config.tokenizer, "The tokenizer service's address");
  app.add_option("--worker", config.workers, "HOST:PORT, or dns:///NAME:PORT; comma-separated")
      ->delimiter(',');
  app.add_option("--listen", config.http.listen, "HOST:PORT of the API; port 0 = any");
  app.add_option("--metrics-listen", config.metrics_listen, "HOST:PORT of /metrics");
  app.add_option("--threads", config.threads, "Event loops; 0 = one per core, 4 at most")
      ->check(CLI::Range(0, 256));
  app.add_option("--api-key", config.api_keys, "A key that may call; repeatable");
  app.add_option("--api-key-file", config.api_key_file,
                 "KEY or sha256:HASH [scope=admin] [in-flight=N] [per-minute=N] a line");
  app.add_option("--thinking-presets", config.thinking_presets_file, "JSON file of prefills");
  app.add_flag("--trust-request-chat-template", config.trust_request_chat_template,
               "Accept chat_template in requests");
  app.add_option("--tls-cert-file", config.http.cert_file, "PEM chain: HTTPS");
  app.add_option("--tls-key-file", config.http.key_file, "PEM key of it");
  app.add_option("--upstream-tls-ca-file", config.upstream_tls.ca_file, "TLS to our services");
  app.add_option("--upstream-tls-client-cert-file", config.upstream_tls.cert_file, "mTLS");
  app.add_option("--upstream-tls-client-key-file", config.upstream_tls.key_file, "mTLS");
  app.add_option("--worker-tls-name", config.worker_tls_name,
                 "Name in the workers' certificates; empty = the name after dns:///");
  DeclareLimits(config, app);
}

absl::Status Validate(const Config& config) {
  if (config.workers.empty()) return absl::InvalidArgumentError("worker: at least one is needed");
  for (const std::string& address : config.workers) {
    if (!absl::StrContains(address, ':')) {
      return absl::InvalidArgumentError("worker: '" + address + "' is not HOST:PORT");
    }
  }
  for (const std::string& key : config.api_keys) {
    if (key.empty()) return absl::InvalidArgumentError("api-key: is empty");
  }
  if (config.http.cert_file.empty() != config.http.key_file.empty()) {
    return absl::InvalidArgumentError("tls-cert-file and tls-key-file go together");
  }
  return absl::OkStatus();
}

}  // namespace behemoth::gateway
