#include "proto/support/status_convert.h"

#include <string>

namespace behemoth::support {
namespace {

constexpr size_t kMaxMessageBytes = 4096;

// The longest prefix of at most kMaxMessageBytes that does not end inside a UTF-8 sequence.
std::string Cut(std::string_view message) {
  if (message.size() <= kMaxMessageBytes) return std::string(message);
  size_t end = kMaxMessageBytes;
  while (end > 0 && (static_cast<unsigned char>(message[end]) & 0xC0) == 0x80) --end;
  return std::string(message.substr(0, end));
}

}  // namespace

// Both enumerations number the seventeen canonical codes alike.
grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.raw_code()),
                      Cut({status.message().data(), status.message().size()}));
}

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      Cut(status.error_message()));
}

absl::Status FromServer(const grpc::Status& status) {
  if (status.error_code() != grpc::StatusCode::CANCELLED) return FromGrpc(status);
  return absl::UnavailableError("the server is going down");
}

}  // namespace behemoth::support
