// The one way our channels to workers and tokenizers are made, and the one place where they end.
//
// gRPC's callback threads end with the last channel, which joins them: so it must not end on one of
// them, where a call's last callback may let it go. Who lets a channel go gives it back here; it
// ends when the next one is made, or with the Channels.
//
// Thread-safe. Outlives its channels' users: the destructor waits for them to let go.
#pragma once

#include <absl/status/statusor.h>
#include <grpcpp/channel.h>

#include <memory>
#include <string>

#include "proto/support/tls.h"

namespace behemoth::gateway {

class Channels {
 public:
  Channels();
  ~Channels();

  // Not on a thread of gRPC's.
  absl::StatusOr<std::shared_ptr<grpc::Channel>> Make(const std::string& address,
                                                      const support::ClientTlsConfig& tls);

 private:
  struct Returned;
  const std::shared_ptr<Returned> returned_;
};

}  // namespace behemoth::gateway
