#include "proto/support/log_sink.h"

#include <absl/synchronization/mutex.h>
#include <absl/time/clock.h>
#include <poll.h>
#include <spdlog/details/log_msg.h>
#include <spdlog/pattern_formatter.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <thread>
#include <utility>

namespace behemoth::support {
namespace {

uint64_t Lines(std::string_view text) {
  return static_cast<uint64_t>(std::count(text.begin(), text.end(), '\n'));
}

// What is left when the descriptor takes no more.
std::string_view WriteAll(int descriptor, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(descriptor, text.data(), text.size());
    if (written > 0) {
      text.remove_prefix(static_cast<size_t>(written));
    } else if (written < 0 && errno == EAGAIN) {  // somebody made the shared pipe non-blocking
      pollfd room{.fd = descriptor, .events = POLLOUT, .revents = 0};
      poll(&room, 1, -1);
    } else if (errno != EINTR) {
      break;
    }
  }
  return text;
}

}  // namespace

struct LogSink::State {
  State(int fd, std::string_view name)
      : descriptor(fd),
        process(name),
        formatter(std::make_unique<spdlog::pattern_formatter>("%v")) {}

  bool Idle() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) { return queue.empty() && !writing; }
  bool Work() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) { return closed || !queue.empty(); }

  void Push(std::string_view line) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    if (queue.size() + line.size() > kQueueBytes) {
      ++dropped;
    } else {
      queue.append(line);
    }
  }
  std::string Format(const spdlog::details::log_msg& message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    spdlog::memory_buf_t line;
    formatter->format(message, line);
    return std::string(line.data(), line.size());
  }

  const int descriptor;
  const std::string process;
  mutable absl::Mutex mutex;
  std::unique_ptr<spdlog::formatter> formatter ABSL_GUARDED_BY(mutex);
  std::string queue ABSL_GUARDED_BY(mutex);
  bool writing ABSL_GUARDED_BY(mutex) = false, closed ABSL_GUARDED_BY(mutex) = false;
  uint64_t dropped ABSL_GUARDED_BY(mutex) = 0;
};

LogSink::LogSink(int descriptor, std::string_view process)
    : state_(std::make_shared<State>(descriptor, process)) {
  std::thread([state = state_] { WriteUntilClosed(state); }).detach();
}

LogSink::~LogSink() {
  absl::MutexLock lock(&state_->mutex);
  state_->closed = true;
  state_->mutex.AwaitWithTimeout(absl::Condition(state_.get(), &State::Idle), kFlushTime);
}

void LogSink::WriteUntilClosed(const std::shared_ptr<State>& state) {
  std::string batch;
  uint64_t told = 0;  // of the dropped lines
  for (absl::MutexLock lock(&state->mutex);;) {
    state->mutex.Await(absl::Condition(state.get(), &State::Work));
    if (state->queue.empty()) return;
    batch.clear();
    batch.swap(state->queue);
    // Lines were dropped while this batch filled the queue: behind it is where they are missing.
    if (const uint64_t fresh = state->dropped - std::exchange(told, state->dropped); fresh > 0) {
      batch += state->Format(spdlog::details::log_msg(state->process, spdlog::level::warn,
                                                      "dropped lines=" + std::to_string(fresh)));
    }
    state->writing = true;
    state->mutex.Unlock();
    const std::string_view left = WriteAll(state->descriptor, batch);
    state->mutex.Lock();
    state->writing = false;
    state->dropped += Lines(left);
  }
}

void LogSink::log(const spdlog::details::log_msg& message) {
  absl::MutexLock lock(&state_->mutex);
  state_->Push(state_->Format(message));
}

void LogSink::Write(std::string_view line) {
  absl::MutexLock lock(&state_->mutex);
  state_->Push(line);
}

void LogSink::flush() {
  absl::MutexLock lock(&state_->mutex);
  state_->mutex.AwaitWithTimeout(absl::Condition(state_.get(), &State::Idle), kFlushTime);
}

void LogSink::set_pattern(const std::string& pattern) {
  set_formatter(std::make_unique<spdlog::pattern_formatter>(pattern));
}

void LogSink::set_formatter(std::unique_ptr<spdlog::formatter> formatter) {
  absl::MutexLock lock(&state_->mutex);
  state_->formatter = std::move(formatter);
}

uint64_t LogSink::dropped() const {
  absl::MutexLock lock(&state_->mutex);
  return state_->dropped;
}

}  // namespace behemoth::support
