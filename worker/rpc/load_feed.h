// Every WatchLoad call: a snapshot at once, at each interval and at every change of state.
//
// Thread-safe. One thread wakes for the watcher that is due next. A watcher whose last snapshot is
// still being written gets the newest one afterwards, never a queue of old ones.
// Life: constructed (the thread runs) -> End -> destroyed after the server.
#pragma once

#include <absl/base/thread_annotations.h>
#include <absl/synchronization/mutex.h>
#include <absl/time/time.h>
#include <grpcpp/grpcpp.h>

#include <functional>
#include <map>
#include <memory>
#include <thread>

#include "behemoth/worker/v1/worker.pb.h"

namespace behemoth::worker {

class LoadFeed {
 public:
  static constexpr absl::Duration kShortestInterval = absl::Milliseconds(50);
  static constexpr absl::Duration kLongestInterval = absl::Seconds(60);

  // `snapshot` fills all but steps_per_second; called on any thread.
  explicit LoadFeed(std::function<v1::WatchLoadResponse()> snapshot);
  ~LoadFeed();

  grpc::ServerWriteReactor<v1::WatchLoadResponse>* Watch(absl::Duration interval);
  // The state has changed: everybody hears of it now.
  void Announce();
  // The last snapshot to everybody, then UNAVAILABLE; the same at once to whoever comes later.
  void End();

 private:
  class Watcher;

  void Run();
  bool IsAwake() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stop_ || announced_ || joined_;
  }
  void Forget(Watcher* watcher);

  const std::function<v1::WatchLoadResponse()> snapshot_;
  absl::Mutex mutex_;
  std::map<Watcher*, std::shared_ptr<Watcher>> watchers_ ABSL_GUARDED_BY(mutex_);
  bool announced_ ABSL_GUARDED_BY(mutex_) = false;
  bool joined_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace behemoth::worker
