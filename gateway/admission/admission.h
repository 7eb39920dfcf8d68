// How many generations may be in flight, in all and for one key. Thread-safe.
//
// The gateway keeps no queue of its own: what is admitted goes to a worker, which queues fairly.
// max_in_flight therefore bounds running and waiting together. Full policy: refuse at once.
#pragma once

#include <absl/base/thread_annotations.h>
#include <absl/container/flat_hash_map.h>
#include <absl/status/statusor.h>
#include <absl/synchronization/mutex.h>
#include <absl/time/time.h>

#include <optional>
#include <string>

namespace behemoth::gateway {

struct AdmissionLimits {
  int max_in_flight = 8192;         // requests, the whole gateway
  int key_in_flight = 0;            // requests of one key; 0 = no limit
  int key_requests_per_minute = 0;  // token bucket, burst = one minute's worth; 0 = no limit
};

// What the key file says of one key; absent = the gateway's own limit.
struct KeyLimits {
  std::optional<int> in_flight, requests_per_minute;  // 0 = none
};

class Admission;

// The right to run one request; gives it back when destroyed. Move-only; not thread-safe.
class Ticket {
 public:
  Ticket() = default;
  Ticket(Ticket&& other) noexcept;
  Ticket& operator=(Ticket&& other) noexcept;
  ~Ticket();

 private:
  friend class Admission;
  Ticket(Admission* admission, std::string key) : admission_(admission), key_(std::move(key)) {}
  Admission* admission_ = nullptr;
  std::string key_;
};

class Admission {
 public:
  explicit Admission(const AdmissionLimits& limits) : limits_(limits) {}

  // RESOURCE_EXHAUSTED: this key's limit (429) or the service's (503), with Retry-After.
  // UNAVAILABLE while draining.
  absl::StatusOr<Ticket> Enter(const std::string& key, absl::Time now, const KeyLimits& own = {});
  void Drain();
  bool draining() const;
  int in_flight() const;
  // True when the last ticket is back within `timeout`.
  bool WaitIdle(absl::Duration timeout);

 private:
  friend class Ticket;
  struct Share {
    int in_flight = 0;
    double tokens = 0;
    absl::Time refilled = absl::InfinitePast();
  };
  void Leave(const std::string& key);
  bool Idle() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return in_flight_ == 0; }

  const AdmissionLimits limits_;
  mutable absl::Mutex mutex_;
  int in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  // By key identity: as many entries as there are keys.
  absl::flat_hash_map<std::string, Share> shares_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace behemoth::gateway
