// absl::Status <-> grpc::Status: the only converter. Codes map one to one; messages carry over, cut
// to 4 KiB (a status travels in trailers, which gRPC limits to 8 KiB).
#pragma once

#include <absl/status/status.h>
#include <grpcpp/support/status.h>

namespace behemoth::support {

grpc::Status ToGrpc(const absl::Status& status);
absl::Status FromGrpc(const grpc::Status& status);

}  // namespace behemoth::support
