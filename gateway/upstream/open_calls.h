// The gRPC calls of one client that have not ended: so that no callback outlives the client and the
// loops behind it. Thread-safe.
//
// Life: Add at a call's start, Remove as the last act of its completion, CancelAndWait once, by the
// client's destructor. Never waits longer than gRPC needs to report a cancelled call.
#pragma once

#include <absl/base/thread_annotations.h>
#include <absl/container/flat_hash_map.h>
#include <absl/synchronization/mutex.h>

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

namespace behemoth::gateway {

class OpenCalls {
 public:
  using Cancel = std::function<void()>;  // keeps what it cancels alive; may be called at any time

  uint64_t Add(Cancel cancel) {
    absl::MutexLock lock(&mutex_);
    calls_.emplace(++last_, std::move(cancel));
    return last_;
  }

  void Remove(uint64_t key) {
    Cancel last;  // destroyed outside the lock
    absl::MutexLock lock(&mutex_);
    if (const auto found = calls_.find(key); found != calls_.end()) {
      last = std::move(found->second);
      calls_.erase(found);
    }
  }

  // No Add() may follow.
  void CancelAndWait() {
    std::vector<Cancel> open;
    {
      absl::MutexLock lock(&mutex_);
      for (const auto& [key, cancel] : calls_) open.push_back(cancel);
    }
    for (const Cancel& cancel : open) cancel();
    open.clear();
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(this, &OpenCalls::None));
  }

 private:
  bool None() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return calls_.empty(); }

  absl::Mutex mutex_;
  uint64_t last_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::flat_hash_map<uint64_t, Cancel> calls_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace behemoth::gateway
