// The one way our channels to workers and tokenizers are made.
#pragma once

#include <absl/status/statusor.h>
#include <grpcpp/channel.h>

#include <memory>
#include <string>

#include "proto/support/tls.h"

namespace behemoth::gateway {

absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const std::string& address,
                                                           const support::ClientTlsConfig& tls);

}  // namespace behemoth::gateway
