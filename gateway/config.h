// Every setting of the gateway: one validated struct, filled from flags, printed once at start.
#pragma once

#include <absl/status/status.h>

#include <string>
#include <vector>

#include "gateway/admission/admission.h"
#include "gateway/http/server.h"
#include "gateway/session/services.h"
#include "proto/support/flags.h"
#include "proto/support/tls.h"

namespace behemoth::gateway {

struct Config {
  std::string tokenizer = "127.0.0.1:50051";               // any address gRPC takes
  std::vector<std::string> workers = {"127.0.0.1:50052"};  // HOST:PORT, or dns:///NAME:PORT = all
                                                           // addresses of the name
  std::string metrics_listen = "127.0.0.1:8001";
  int threads = 0;  // loops; 0 = one per core, 4 at most
  HttpServerConfig http = {.listen = "127.0.0.1:8000"};
  std::vector<std::string> api_keys;
  std::string api_key_file;
  AdmissionLimits admission;
  int request_timeout_s = 1800;  // a 32 K answer at 20 tokens/s
  int drain_timeout_s = 120;     // admitted streams after SIGTERM; below the pod's grace period
  std::string thinking_presets_file;
  bool trust_request_chat_template = false;
  support::ClientTlsConfig upstream_tls;
  std::string worker_tls_name;  // empty = the host of a dns:/// target: its addresses are dialled
};

// Declares every flag on `flags`; the values land in `config` when it parses.
void DeclareFlags(Config& config, support::Flags& flags);

// INVALID_ARGUMENT naming the flag.
absl::Status Validate(const Config& config);

}  // namespace behemoth::gateway
