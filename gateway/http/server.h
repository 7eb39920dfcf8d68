// Accepts connections and spreads them over the loops.
//
// Life: Start -> accepting -> RetireConnections -> StopAccepting -> Stop. Thread-safe; the
// composition root calls.
#pragma once

#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <memory>
#include <string>

#include "gateway/http/application.h"
#include "gateway/http/limits.h"
#include "gateway/loop/asio_loop.h"

namespace behemoth::gateway {

struct HttpServerConfig {
  std::string listen;               // "127.0.0.1:8000", "[::]:0"
  std::string cert_file, key_file;  // PEM; both = HTTPS, TLS 1.2 or newer
  HttpLimits limits;
};

class HttpServer {
 public:
  // UNAVAILABLE naming the address; INVALID_ARGUMENT for address and TLS files. `loops` and
  // `application` outlive the server.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const HttpServerConfig& config,
                                                           LoopGroup* loops,
                                                           Application* application);
  ~HttpServer();

  int port() const;
  // Idle connections close, the others after their reply; new ones are answered once: what is
  // refused while draining hears why, and probes still reach /health and /live.
  void RetireConnections();
  // No new connections; those without a request in work close.
  void StopAccepting();
  // The certificate of new connections follows its files; one that cannot be read leaves the old
  // one.
  void ReloadTlsIfChanged();
  // True when every connection has ended within `timeout`.
  bool WaitForConnections(absl::Duration timeout);
  // Cuts what is left. The loops must still run.
  void Stop();

  class Impl;

 private:
  explicit HttpServer(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<Impl> impl_;
};

}  // namespace behemoth::gateway
