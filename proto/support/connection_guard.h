// Ends connections to a gRPC server that make it work for nothing. gRPC 1.51 bounds neither of the
// two ways that HTTP/2 offers:
// - rapid reset (CVE-2023-44487): calls opened and cancelled as fast as the line takes them. Limit:
//   `resets` calls cancelled while younger than a second, in a second.
// - frames that belong to no call: header blocks without an end (CONTINUATION flood), PING,
//   SETTINGS. Limit: what a connection sends beyond the messages of its calls: `free_bytes` in
//   100 ms, ten times in a row or until they are `flood_bytes` together.
//
// Life: constructed -> AddTo the builder -> Watch -> destroyed after the server. Thread-safe after
// AddTo. Connections are known by their peer's address, as gRPC writes it; a call of a method that
// nobody serves counts like any other. One account for each open connection.
#pragma once

#include <absl/base/thread_annotations.h>
#include <absl/container/flat_hash_map.h>
#include <absl/synchronization/mutex.h>
#include <absl/time/time.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <string>
#include <thread>

namespace behemoth::support {

class ConnectionGuard {
 public:
  struct Limits {
    // A gateway whose clients all leave within a second cancels a few hundred.
    int resets = 1000;
    // Window updates, pings and resets of the busiest connection: some 10 KiB.
    uint64_t free_bytes = 128 << 10;
    uint64_t flood_bytes = 8 << 20;  // gRPC keeps about twice as much of an endless header block
    uint64_t call_bytes = 4 << 20;   // the largest request message
  };

  explicit ConnectionGuard(const Limits& limits) : limits_(limits) {}
  ~ConnectionGuard();

  void AddTo(grpc::ServerBuilder& builder);
  // The server listens on `port`: looks at its connections from now on.
  void Watch(int port);

 private:
  class Call;
  class CallFactory;
  struct Account {
    int resets = 0;  // since `counted_since`
    absl::Time counted_since = absl::InfinitePast();
    uint64_t calls = 0;      // begun since the last look
    uint64_t uploading = 0;  // their message has not arrived whole
    uint64_t uploading_then = 0;
    uint64_t taken_bytes = 0;  // by gRPC, at the last look
    int overdrawn_looks = 0;   // in a row
    uint64_t overdrawn_bytes = 0;
    bool condemned = false, open = false;
  };

  void OnCall(const std::string& peer);
  void OnMessage(const std::string& peer);
  void OnReset(const std::string& peer);
  void Run();
  void Look();
  void LookAt(int socket);
  bool Overdrawn(Account& account, uint64_t taken_bytes) const;
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stop_ || condemned_ > 0; }

  const Limits limits_;
  grpc::CallbackGenericService unknown_methods_;
  int port_ = 0;
  absl::Mutex mutex_;
  absl::flat_hash_map<std::string, Account> accounts_ ABSL_GUARDED_BY(mutex_);
  int condemned_ ABSL_GUARDED_BY(mutex_) = 0;  // to be ended before the next look is due
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace behemoth::support
