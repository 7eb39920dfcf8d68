// Lines on their way to a file descriptor: whoever logs never waits for whoever reads.
//
// A thread of the sink's own writes. Before it lies a queue of kQueueBytes; a line that finds it
// full is dropped and counted, and the count is written where the lines are missing. A reader that
// stops, a full disk or a closed pipe therefore cost lines, never a loop's time.
//
// Thread-safe. Life: constructed (after signals are blocked: the thread inherits the mask) ->
// destroyed, which flushes. A thread that a dead reader holds in write() is left to the end of the
// process, with the state that it shares.
#pragma once

#include <absl/time/time.h>
#include <spdlog/sinks/sink.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace behemoth::support {

class LogSink final : public spdlog::sinks::sink {
 public:
  // Some 5,000 lines: seconds of any reader's absence, and nothing in a budget of memory.
  static constexpr size_t kQueueBytes = size_t{1} << 20;
  static constexpr absl::Duration kFlushTime = absl::Seconds(1);

  // `descriptor` stays the caller's. `process` names the lines of the sink's own.
  LogSink(int descriptor, std::string_view process);
  ~LogSink() override;

  void log(const spdlog::details::log_msg& message) override;
  // A line as it is, in the order of the others; `line` ends with its line break.
  void Write(std::string_view line);
  // Until all that was logged before is written, kFlushTime at most.
  void flush() override;
  void set_pattern(const std::string& pattern) override;
  void set_formatter(std::unique_ptr<spdlog::formatter> formatter) override;

  // Lines that found the queue full or could not be written, since the start.
  uint64_t dropped() const;

 private:
  struct State;
  static void WriteUntilClosed(const std::shared_ptr<State>& state);
  std::shared_ptr<State> state_;
};

}  // namespace behemoth::support
