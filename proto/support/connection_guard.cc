#include "proto/support/connection_guard.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <arpa/inet.h>
#include <dirent.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "proto/support/log.h"

namespace behemoth::support {
namespace {

constexpr absl::Duration kLookInterval = absl::Milliseconds(100);
constexpr absl::Duration kResetWindow = absl::Seconds(1);
// A thread of gRPC's that waits for the processor may count a call later than its bytes.
constexpr int kForgivenLooks = 9;
constexpr uint64_t kHeaderBytes = 16 << 10;  // of a call, beside its message

struct Endpoint {
  std::string name;  // as grpc::ServerContext::peer() writes it
  int port = 0;
};

Endpoint EndpointOf(const sockaddr_storage& address) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    inet_ntop(AF_INET, &v4.sin_addr, text, sizeof(text));
    return {absl::StrCat("ipv4:", text, ":", ntohs(v4.sin_port)), ntohs(v4.sin_port)};
  }
  if (address.ss_family != AF_INET6) return {};
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
  const int port = ntohs(v6.sin6_port);
  if (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) {
    inet_ntop(AF_INET, &v6.sin6_addr.s6_addr[12], text, sizeof(text));
    return {absl::StrCat("ipv4:", text, ":", port), port};
  }
  inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof(text));
  return {absl::StrCat("ipv6:%5B", text, "%5D:", port), port};
}

// The process's open descriptors. No duplicates are made: gRPC's epoll would go on hearing of a
// socket that it has closed. A number that has come to mean another socket meanwhile is looked at
// as that one.
std::vector<int> OpenDescriptors() {
  std::vector<int> numbers;
  DIR* const folder = opendir("/proc/self/fd");
  if (folder == nullptr) return numbers;
  while (const dirent* entry = readdir(folder)) {
    int number = -1;
    if (absl::SimpleAtoi(entry->d_name, &number)) numbers.push_back(number);
  }
  closedir(folder);
  return numbers;
}

// What was received and read out of the kernel.
uint64_t TakenBytes(int socket) {
  tcp_info info{};
  socklen_t size = sizeof(info);
  int unread = 0;
  if (getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return 0;
  if (ioctl(socket, SIOCINQ, &unread) != 0) return 0;
  return info.tcpi_bytes_received - std::min<uint64_t>(info.tcpi_bytes_received, unread);
}

}  // namespace

// One call: begun, its message, its end.
class ConnectionGuard::Call final : public grpc::experimental::Interceptor {
 public:
  Call(ConnectionGuard* guard, grpc::ServerContextBase* context)
      : guard_(guard), context_(context), peer_(context->peer()), began_(absl::Now()) {
    guard_->OnCall(peer_);
  }
  ~Call() override { Uploaded(); }

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    using Point = grpc::experimental::InterceptionHookPoints;
    if (methods->QueryInterceptionHookPoint(Point::POST_RECV_MESSAGE)) Uploaded();
    if (methods->QueryInterceptionHookPoint(Point::POST_RECV_CLOSE) && context_->IsCancelled() &&
        absl::Now() - began_ < kResetWindow) {
      guard_->OnReset(peer_);
    }
    methods->Proceed();
  }

 private:
  void Uploaded() {
    if (!std::exchange(uploaded_, true)) guard_->OnMessage(peer_);
  }

  ConnectionGuard* const guard_;
  grpc::ServerContextBase* const context_;
  const std::string peer_;
  const absl::Time began_;
  bool uploaded_ = false;
};

class ConnectionGuard::CallFactory final
    : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit CallFactory(ConnectionGuard* guard) : guard_(guard) {}
  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* rpc) override {
    return new Call(guard_, rpc->server_context());
  }

 private:
  ConnectionGuard* const guard_;
};

void ConnectionGuard::AddTo(grpc::ServerBuilder& builder) {
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> factories;
  factories.push_back(std::make_unique<CallFactory>(this));
  builder.experimental().SetInterceptorCreators(std::move(factories));
  builder.RegisterCallbackGenericService(&unknown_methods_);
}

void ConnectionGuard::Watch(int port) {
  port_ = port;
  thread_ = std::thread([this] { Run(); });
}

ConnectionGuard::~ConnectionGuard() {
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

void ConnectionGuard::OnCall(const std::string& peer) {
  absl::MutexLock lock(&mutex_);
  Account& account = accounts_[peer];
  account.open = true;  // the look that is under way may not have seen the connection
  ++account.calls;
  ++account.uploading;
}

void ConnectionGuard::OnMessage(const std::string& peer) {
  absl::MutexLock lock(&mutex_);
  const auto found = accounts_.find(peer);
  if (found != accounts_.end() && found->second.uploading > 0) --found->second.uploading;
}

void ConnectionGuard::OnReset(const std::string& peer) {
  absl::MutexLock lock(&mutex_);
  const auto found = accounts_.find(peer);
  if (found == accounts_.end()) return;
  Account& account = found->second;
  const absl::Time now = absl::Now();
  if (now - account.counted_since >= kResetWindow) {
    account.counted_since = now;
    account.resets = 0;
  }
  if (++account.resets <= limits_.resets || account.condemned) return;
  account.condemned = true;
  ++condemned_;
}

void ConnectionGuard::Run() {
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      mutex_.AwaitWithTimeout(absl::Condition(this, &ConnectionGuard::HasWork), kLookInterval);
      if (stop_) return;
    }
    Look();
  }
}

void ConnectionGuard::Look() {
  {
    absl::MutexLock lock(&mutex_);
    condemned_ = 0;
    for (auto& [peer, account] : accounts_) account.open = false;
  }
  for (const int socket : OpenDescriptors()) LookAt(socket);
  absl::MutexLock lock(&mutex_);
  absl::erase_if(accounts_, [](const auto& entry) { return !entry.second.open; });
}

void ConnectionGuard::LookAt(int socket) {
  sockaddr_storage here, there;
  socklen_t here_size = sizeof(here), there_size = sizeof(there);
  if (getsockname(socket, reinterpret_cast<sockaddr*>(&here), &here_size) != 0 ||
      getpeername(socket, reinterpret_cast<sockaddr*>(&there), &there_size) != 0 ||
      EndpointOf(here).port != port_) {
    return;
  }
  const std::string peer = EndpointOf(there).name;
  const uint64_t taken_bytes = TakenBytes(socket);
  const char* why = nullptr;
  {
    absl::MutexLock lock(&mutex_);
    Account& account = accounts_[peer];
    account.open = true;
    if (account.condemned) {
      why = "resets";
    } else if (Overdrawn(account, taken_bytes)) {
      why = "bytes_without_calls";
    }
    if (why != nullptr) account = {.taken_bytes = taken_bytes, .open = true};  // said once
  }
  if (why == nullptr) return;
  shutdown(socket, SHUT_RDWR);
  Log().warn("connection ended peer={} reason={}", Escaped(peer), why);
}

bool ConnectionGuard::Overdrawn(Account& account, uint64_t taken_bytes) const {
  const uint64_t came = taken_bytes - std::min(taken_bytes, account.taken_bytes);
  const uint64_t calls = account.calls + account.uploading_then;
  const uint64_t allowed = calls * (limits_.call_bytes + kHeaderBytes);
  if (came > limits_.free_bytes + allowed) {
    ++account.overdrawn_looks;
    account.overdrawn_bytes += came - allowed;
  } else {
    account.overdrawn_looks = 0;
    account.overdrawn_bytes = 0;
  }
  account.taken_bytes = taken_bytes;
  account.uploading_then = account.uploading;
  account.calls = 0;
  return account.overdrawn_looks > kForgivenLooks || account.overdrawn_bytes > limits_.flood_bytes;
}

}  // namespace behemoth::support
