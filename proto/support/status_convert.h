// absl::Status <-> grpc::Status: the only converter. Codes map one to one; messages carry over, cut
// to 4 KiB (a status travels in trailers, which gRPC limits to 8 KiB).
#pragma once

#include <absl/status/status.h>
#include <grpcpp/support/status.h>

namespace behemoth::support {

grpc::Status ToGrpc(const absl::Status& status);
absl::Status FromGrpc(const grpc::Status& status);

// For a client that did not cancel its call itself. CANCELLED is then UNAVAILABLE: it is how gRPC
// ends a call that arrives between a server's shutdown and the client's reading of GOAWAY.
absl::Status FromServer(const grpc::Status& status);

}  // namespace behemoth::support
