// The event loop that a connection and its session live on: the only way into their state.
//
// An interface so that sessions and upstream clients are tested without threads, sockets or a real
// clock. The real one is asio_loop.h.
#pragma once

#include <absl/functional/any_invocable.h>
#include <absl/time/time.h>

#include <memory>

namespace behemoth::gateway {

using Task = absl::AnyInvocable<void()>;

// One-shot, restartable. Loop thread only; destroying it cancels it. The task never runs after
// Cancel(), Start() or the destructor has returned.
class Timer {
 public:
  virtual ~Timer() = default;
  virtual void Start(absl::Duration after, Task task) = 0;
  virtual void Cancel() = 0;
};

class Loop {
 public:
  virtual ~Loop() = default;
  // Runs the task on the loop's thread, in the order of the calls. Thread-safe. After the loop has
  // stopped, tasks are destroyed without running.
  virtual void Post(Task task) = 0;
  virtual std::unique_ptr<Timer> NewTimer() = 0;  // loop thread only
  virtual absl::Time Now() const = 0;             // thread-safe
};

}  // namespace behemoth::gateway
