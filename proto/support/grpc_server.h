// One gRPC server as every process of ours runs it: health, reflection, limits, keepalive, TLS,
// drain.
//
// Life: Start -> serving -> Drain -> destroyed. Thread-safe after Start.
// Limits (defaults and reasons in GrpcServerConfig). Keepalive tolerates clients that ping every
// 10 s or slower, also without calls. MAX_CONNECTION_AGE makes clients re-resolve their DNS name.
#pragma once

#include <absl/status/statusor.h>
#include <absl/time/time.h>
#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>
#include <vector>

#include "proto/support/health.h"
#include "proto/support/tls.h"

namespace behemoth::support {

struct GrpcServerConfig {
  std::string listen;  // "127.0.0.1:50051", "[::]:0"
  ServerTlsConfig tls;
  int max_receive_bytes = 4 << 20;  // the longest legal request decides
  absl::Duration max_connection_age = absl::Minutes(30);
  bool reflection = true;  // off in hardened mode
};

class GrpcServer {
 public:
  // Binds and serves. `services` and `health` outlive the server.
  // UNAVAILABLE naming the address if it cannot be bound; INVALID_ARGUMENT for the TLS files.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const GrpcServerConfig& config,
                                                           std::vector<grpc::Service*> services,
                                                           Health* health);
  // The health service alone, in plaintext, for a kubelet that knows no TLS: the same answers as
  // the server with the services. Drain that one first.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> StartHealthPort(const std::string& listen,
                                                                     Health* health);
  ~GrpcServer();

  // The bound port: what a listen address with port 0 got.
  int port() const { return port_; }

  // Health to NOT_SERVING, no new calls (GOAWAY), waits for calls in flight up to `timeout`, then
  // cancels them and returns when the last handler has returned. Idempotent.
  void Drain(absl::Duration timeout);

 private:
  GrpcServer() = default;

  std::unique_ptr<grpc::Server> server_;
  Health* health_ = nullptr;
  int port_ = 0;
};

}  // namespace behemoth::support
