// Threads for calls that would hold one of gRPC's few threads too long: while megabytes are encoded
// here, short calls and health checks are answered there.
//
// Thread-safe. Waiting calls are bounded; beyond the bound a call is refused, never delayed.
#pragma once

#include <absl/base/thread_annotations.h>
#include <absl/synchronization/mutex.h>

#include <deque>
#include <functional>
#include <thread>
#include <vector>

namespace behemoth::tokenizer {

class LongCalls {
 public:
  // `threads` >= 1. `max_waiting` calls may wait while all threads are busy.
  LongCalls(int threads, size_t max_waiting);
  // Runs what still waits, then joins.
  ~LongCalls();
  LongCalls(const LongCalls&) = delete;
  LongCalls& operator=(const LongCalls&) = delete;

  // Runs `call` on one of the threads, in order of arrival. False and nothing done: too many wait.
  bool TryRun(std::function<void()> call);

 private:
  void Work();

  const size_t max_waiting_;
  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  size_t busy_ ABSL_GUARDED_BY(mutex_) = 0;  // threads inside a call
  std::deque<std::function<void()>> waiting_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;  // constant after construction
};

}  // namespace behemoth::tokenizer
