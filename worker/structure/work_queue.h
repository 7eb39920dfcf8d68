// A few threads and a bounded queue of work for them. Thread-safe.
// Life: threads run from construction until Stop (or destruction), which lets them finish what is
// queued.
#pragma once

#include <absl/base/thread_annotations.h>
#include <absl/functional/any_invocable.h>
#include <absl/synchronization/mutex.h>

#include <deque>
#include <thread>
#include <vector>

namespace behemoth::worker {

class WorkQueue {
 public:
  WorkQueue(int threads, size_t bound);
  ~WorkQueue() { Stop(); }

  // False: full, or stopped.
  bool Post(absl::AnyInvocable<void()> work);
  // From one thread at a time.
  void Stop();

 private:
  void Run();
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stop_ || !work_.empty(); }

  const size_t bound_;
  absl::Mutex mutex_;
  std::deque<absl::AnyInvocable<void()>> work_ ABSL_GUARDED_BY(mutex_);
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace behemoth::worker
