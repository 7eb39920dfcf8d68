// What GetStatus says: the state of the process, how far the load is, and what it serves.
// Thread-safe.
//
//   loading -> warming -> ready -> draining
//   loading | warming -> draining;  any -> failed
#pragma once

#include <absl/base/thread_annotations.h>
#include <absl/synchronization/mutex.h>
#include <absl/time/time.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "behemoth/worker/v1/worker.pb.h"
#include "worker/engine/engine.h"

namespace behemoth::worker {

enum class WorkerState { kLoading, kWarming, kReady, kDraining, kFailed };

bool MayFollow(WorkerState from, WorkerState to);
const char* Name(WorkerState state);
v1::WorkerState ToMessage(WorkerState state);
// All but steps_per_second, which needs two of them.
v1::WatchLoadResponse ToMessage(WorkerState state, const LoadSnapshot& load);

class StatusBoard {
 public:
  // `described` carries model, limits, devices and build: what does not change.
  explicit StatusBoard(v1::GetStatusResponse described);

  // Called after each change of the reported state, on the thread that made it, under no lock.
  // Before the first change.
  void SetListener(std::function<void()> on_change) { on_change_ = std::move(on_change); }

  // False = the table has no such step (the process is already draining, say); nothing changed.
  bool Enter(WorkerState to);
  WorkerState state() const { return state_.load(std::memory_order_acquire); }

  // The engine's heartbeat. While it is missing the reported state is failed; it may come back.
  void SetResponsive(bool responsive);
  bool responsive() const { return responsive_.load(std::memory_order_relaxed); }
  WorkerState reported() const { return responsive() ? state() : WorkerState::kFailed; }

  void SetLoadProgress(uint64_t done_bytes, uint64_t total_bytes, absl::Time now);
  double load_percent() const;
  double load_bytes_per_second() const;
  void Fill(v1::GetStatusResponse* response) const;

 private:
  const v1::GetStatusResponse described_;
  std::function<void()> on_change_ = [] {};
  std::atomic<WorkerState> state_ = WorkerState::kLoading;
  std::atomic<bool> responsive_ = true;

  mutable absl::Mutex mutex_;
  v1::LoadProgress load_ ABSL_GUARDED_BY(mutex_);
  absl::Time load_began_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

}  // namespace behemoth::worker
