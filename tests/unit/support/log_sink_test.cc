#include "proto/support/log_sink.h"

#include <absl/time/clock.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <spdlog/details/log_msg.h>
#include <unistd.h>

#include <csignal>
#include <string>

namespace behemoth::support {
namespace {

constexpr char kLine[] =
    "one hundred bytes of a line that says nothing but that it is as long as a "
    "line of a log often is .\n";

struct Pipe {
  Pipe() { EXPECT_EQ(pipe(ends), 0); }
  ~Pipe() {
    CloseReader();
    close(ends[1]);
  }
  void CloseReader() {
    if (ends[0] >= 0) close(ends[0]);
    ends[0] = -1;
  }
  // Until `marker` has come.
  std::string ReadUntil(const std::string& marker) const {
    std::string all;
    char buffer[65536];
    while (all.find(marker) == std::string::npos) {
      const ssize_t bytes = read(ends[0], buffer, sizeof(buffer));
      if (bytes <= 0) break;
      all.append(buffer, static_cast<size_t>(bytes));
    }
    return all;
  }
  int ends[2] = {-1, -1};
};

// A line longer than the pipe: the writing thread is held in write() from here on.
// Returns once the thread is in that write: a byte of it has come.
void FillPipe(LogSink& sink, const Pipe& pipe) {
  sink.Write(std::string(200'000, 'x') + '\n');
  char first;
  ASSERT_EQ(read(pipe.ends[0], &first, 1), 1);
}

TEST(LogSinkTest, LinesComeInOrderAndFormatted) {
  Pipe pipe;
  LogSink sink(pipe.ends[1], "p");
  sink.set_pattern("process=%n %v");
  sink.log(spdlog::details::log_msg("p", spdlog::level::info, "first"));
  sink.Write("as it is\n");
  sink.log(spdlog::details::log_msg("p", spdlog::level::info, "second"));
  EXPECT_EQ(pipe.ReadUntil("second\n"), "process=p first\nas it is\nprocess=p second\n");
}

TEST(LogSinkTest, AReaderThatStopsCostsLinesAndNoTime) {
  Pipe pipe;
  LogSink sink(pipe.ends[1], "p");
  FillPipe(sink, pipe);
  const absl::Time began = absl::Now();
  for (int i = 0; i < 50'000; ++i) sink.Write(kLine);  // 5 MB into a queue of 1 MiB
  EXPECT_LT(absl::Now() - began, absl::Seconds(2));
  EXPECT_GT(sink.dropped(), 50'000u - 3 * LogSink::kQueueBytes / sizeof(kLine));
  EXPECT_LT(sink.dropped(), 50'000u);

  // The reader is back: what was kept comes, then the sum of what was not.
  const uint64_t dropped = sink.dropped();
  const std::string all = pipe.ReadUntil("dropped lines=" + std::to_string(dropped) + "\n");
  EXPECT_NE(all.find(kLine), std::string::npos);
  sink.Write("again\n");
  EXPECT_EQ(pipe.ReadUntil("again\n"), "again\n");
  EXPECT_EQ(sink.dropped(), dropped);
}

TEST(LogSinkTest, TheEndDoesNotWaitForADeadReader) {
  Pipe pipe;
  const absl::Time began = absl::Now();
  {
    LogSink sink(pipe.ends[1], "p");
    FillPipe(sink, pipe);
    sink.flush();
  }
  EXPECT_LT(absl::Now() - began, 3 * LogSink::kFlushTime);
  pipe.ReadUntil("x\n");  // lets the thread go before its descriptor is closed
}

TEST(LogSinkTest, AClosedPipeIsCountedAndHarmless) {
  signal(SIGPIPE, SIG_IGN);
  Pipe pipe;
  pipe.CloseReader();
  LogSink sink(pipe.ends[1], "p");
  for (int i = 0; i < 10; ++i) sink.Write(kLine);
  sink.flush();
  EXPECT_EQ(sink.dropped(), 10u);
}

TEST(LogSinkTest, FlushWaitsForWhatWasLoggedBefore) {
  Pipe pipe;
  fcntl(pipe.ends[1], F_SETFL, O_NONBLOCK);  // as a shell may leave a shared stderr
  LogSink sink(pipe.ends[1], "p");
  for (int i = 0; i < 100; ++i) sink.Write(kLine);
  sink.flush();
  char buffer[65536];
  EXPECT_EQ(read(pipe.ends[0], buffer, sizeof(buffer)),
            static_cast<ssize_t>(100 * (sizeof(kLine) - 1)));
}

}  // namespace
}  // namespace behemoth::support
