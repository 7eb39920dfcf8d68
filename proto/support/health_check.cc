#include "proto/support/health_check.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <grpcpp/grpcpp.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <memory>

#include "grpc/health/v1/health.grpc.pb.h"

namespace behemoth::support {
namespace {

constexpr int kSeconds = 3;
constexpr char kHttp[] = "http://";

absl::Status CheckGrpc(const std::string& address, const std::string& service) {
  const auto stub = grpc::health::v1::Health::NewStub(
      grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(kSeconds));
  context.set_wait_for_ready(false);
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  grpc::health::v1::HealthCheckResponse response;
  const grpc::Status status = stub->Check(&context, request, &response);
  if (!status.ok())
    return absl::UnavailableError(absl::StrCat(address, ": ", status.error_message()));
  if (response.status() != grpc::health::v1::HealthCheckResponse::SERVING) {
    return absl::UnavailableError(
        absl::StrCat(address, ": ",
                     grpc::health::v1::HealthCheckResponse::ServingStatus_Name(response.status())));
  }
  return absl::OkStatus();
}

// The status line of a reply; empty if none came in time.
std::string StatusLine(const std::string& host, const std::string& port, const std::string& path) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0) return "";
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> addresses(found, freeaddrinfo);
  for (const addrinfo* entry = found; entry != nullptr; entry = entry->ai_next) {
    const int peer = socket(entry->ai_family, SOCK_STREAM, 0);
    if (peer < 0) continue;
    const timeval limit = {.tv_sec = kSeconds, .tv_usec = 0};
    setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    setsockopt(peer, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    const std::string request =
        absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: ", host, "\r\nConnection: close\r\n\r\n");
    char reply[64] = {};
    const bool answered = connect(peer, entry->ai_addr, entry->ai_addrlen) == 0 &&
                          send(peer, request.data(), request.size(), MSG_NOSIGNAL) ==
                              static_cast<ssize_t>(request.size()) &&
                          recv(peer, reply, sizeof(reply) - 1, MSG_WAITALL) > 0;
    close(peer);
    if (answered) return std::string(reply).substr(0, std::string(reply).find('\r'));
  }
  return "";
}

absl::Status CheckHttp(const std::string& target) {
  const std::string rest = target.substr(sizeof(kHttp) - 1);
  const size_t slash = rest.find('/');
  const std::string address = rest.substr(0, slash);
  const size_t colon = address.rfind(':');
  if (slash == rest.npos || colon == address.npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("check-health: '", target, "' is not http://HOST:PORT/PATH"));
  }
  std::string host = address.substr(0, colon);
  if (host.size() > 1 && host.front() == '[') host = host.substr(1, host.size() - 2);
  const std::string line = StatusLine(host, address.substr(colon + 1), rest.substr(slash));
  if (absl::StartsWith(line, "HTTP/1.1 200")) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(target, ": ", line.empty() ? "no answer" : line));
}

}  // namespace

absl::Status CheckHealth(const std::string& target) {
  if (absl::StartsWith(target, kHttp)) return CheckHttp(target);
  const std::string address = target.substr(0, target.find('/'));
  if (!absl::StrContains(address, ':')) {
    return absl::InvalidArgumentError(
        absl::StrCat("check-health: '", target, "' is not HOST:PORT[/SERVICE]"));
  }
  const bool named = address.size() < target.size();
  return CheckGrpc(address, named ? target.substr(address.size() + 1) : "");
}

}  // namespace behemoth::support
