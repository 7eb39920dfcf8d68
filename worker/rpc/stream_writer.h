// Hands the engine's events to gRPC on a thread of its own: a write costs microseconds and a system
// call, and at 64 streams the engine thread would spend more time there than on the step.
//
// Life: constructed (the thread runs) -> destroyed (the thread has written what was flushed).
// Bound: a stream is in the list at most once, so the list is as long as there are streams.
#pragma once

#include <absl/base/thread_annotations.h>
#include <absl/synchronization/mutex.h>

#include <memory>
#include <thread>
#include <vector>

namespace behemoth::worker {

class StreamWriter {
 public:
  class Stream {
   public:
    virtual ~Stream() = default;
    // Writer thread.
    virtual void WriteReady() = 0;
  };

  StreamWriter();
  ~StreamWriter();

  // Engine thread. The stream has something to write; nothing happens before Flush.
  void Schedule(std::shared_ptr<Stream> stream) { scheduled_.push_back(std::move(stream)); }
  // Engine thread, once per publication: one lock and one wake for all streams of a step.
  void Flush();

 private:
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stop_ || !ready_.empty(); }
  void Run();

  std::vector<std::shared_ptr<Stream>> scheduled_;  // engine thread only
  absl::Mutex mutex_;
  std::vector<std::shared_ptr<Stream>> ready_ ABSL_GUARDED_BY(mutex_);
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace behemoth::worker
