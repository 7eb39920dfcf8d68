// Health from the engine's heartbeat: a living process whose engine thread hangs or has died is
// NOT_SERVING. Has a thread of its own, so that nothing it watches can keep it from looking.
// Thread-safe. Sets the two names of the service ("behemoth.worker.v1.WorkerService" and the short
// "behemoth.worker.v1.Worker"); "" is the process and is set by the composition root.
#pragma once

#include <absl/base/thread_annotations.h>
#include <absl/synchronization/mutex.h>
#include <absl/time/time.h>

#include <functional>
#include <thread>

#include "proto/support/health.h"
#include "worker/rpc/status_board.h"

namespace behemoth::worker {

class EngineWatchdog {
 public:
  // `last_beat` is asked only while the board's state is ready. All outlive the watchdog.
  // `limit`: a beat older than this is missing; the engine's idle beat is far below it.
  EngineWatchdog(absl::Duration limit, std::function<absl::Time()> last_beat, StatusBoard* board,
                 support::Health* health);
  ~EngineWatchdog();

  // The state has changed: health follows at once. Not from under a lock.
  void Refresh();

 private:
  void Run();
  void CheckBeat();

  const absl::Duration limit_;
  const std::function<absl::Time()> last_beat_;
  StatusBoard* const board_;
  support::Health* const health_;
  absl::Mutex setting_;  // orders read-then-set: an older state never overtakes a newer one
  absl::Mutex mutex_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace behemoth::worker
