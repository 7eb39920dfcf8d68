// Requests that are suspected of ending workers: twice in a row they were with a worker when it was
// lost. Thread-compatible: the pool's mutex guards it.
//
// A request is known by the hash of what its client sent, so that a client's own retry is the same
// request; 0 is nobody's. A run that ends in any other way clears its name; kMemory after the last
// loss the suspicion is forgotten. Bound: kMaxSuspects; when full, who is not yet known stays
// unknown.
#pragma once

#include <absl/container/flat_hash_map.h>
#include <absl/time/time.h>

#include <cstddef>
#include <cstdint>

namespace behemoth::gateway {

class Quarantine {
 public:
  static constexpr int kLosses = 2;
  static constexpr absl::Duration kMemory = absl::Minutes(10);
  static constexpr size_t kMaxSuspects = 16'384;  // all that two full gateways had in flight

  bool Holds(uint64_t content, absl::Time now) const;
  // `life` numbers the worker's process: many equal requests that are lost with it count once.
  void OnLoss(uint64_t content, uint64_t life, absl::Time now);
  void OnServed(uint64_t content) { suspects_.erase(content); }

 private:
  struct Suspect {
    int losses = 0;
    uint64_t last_life = 0;
    absl::Time last_at;
  };
  absl::flat_hash_map<uint64_t, Suspect> suspects_;
};

}  // namespace behemoth::gateway
