// One of 32 clients reads a byte a second (operations.md 6, 37): the other 31 get their tokens when
// they would have got them, and that one is bounded, cut and counted.
#include <absl/functional/function_ref.h>
#include <gmock/gmock.h>
#include <poll.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "tests/integration/gateway/gateway_fixture.h"

namespace behemoth::gateway {
namespace {

constexpr int kOthers = 31;
constexpr absl::Duration kInterval = absl::Milliseconds(20);
constexpr int kWriteTimeoutMs = 3000;

// What one client saw: so many chunks, after the first read and up to the last.
struct Pace {
  absl::Time first = absl::InfiniteFuture(), last;
  int chunks = 0;
};

using Clients = std::vector<std::unique_ptr<HttpClient>>;

// Reads `clients` as their bytes come, and `slow`, if any, a byte a second, until `done`, which is
// asked ten times a second. Returns the mean time between two chunks of a client.
double MeanGapMs(const Clients& clients, const HttpClient* slow, absl::FunctionRef<bool()> done) {
  std::vector<Pace> paces(clients.size());
  std::vector<pollfd> waiting;
  for (const auto& client : clients) waiting.push_back({client->fd(), POLLIN, 0});
  absl::Time ask = absl::Now(), drip = absl::Now();
  char buffer[16384];
  while (true) {
    poll(waiting.data(), waiting.size(), 50);
    const absl::Time now = absl::Now();
    for (size_t i = 0; i < waiting.size(); ++i) {
      if ((waiting[i].revents & POLLIN) == 0) continue;
      const ssize_t got = recv(waiting[i].fd, buffer, sizeof(buffer), 0);
      const std::string_view text(buffer, static_cast<size_t>(std::max<ssize_t>(got, 0)));
      paces[i].last = now;
      if (paces[i].first == absl::InfiniteFuture()) {  // with what had piled up
        paces[i].first = now;
        continue;
      }
      for (size_t at = 0; (at = text.find("data: ", at)) != text.npos; ++at) ++paces[i].chunks;
    }
    if (slow != nullptr && now >= drip) {
      recv(slow->fd(), buffer, 1, MSG_DONTWAIT);
      drip = now + absl::Seconds(1);
    }
    if (now < ask) continue;
    if (done()) break;
    ask = now + absl::Milliseconds(100);
  }
  double gaps = 0;
  for (const Pace& pace : paces) {
    gaps += absl::ToDoubleMilliseconds(pace.last - pace.first) / pace.chunks;
  }
  return gaps / static_cast<double>(paces.size());
}

using SlowReaderTest = GatewayTest;

TEST_F(SlowReaderTest, TheOther31KeepTheirPaceAndItIsCutAndCounted) {
  Config config;
  config.http.limits.write_timeout_ms = kWriteTimeoutMs;
  Start({.interval = kInterval}, config);
  Clients clients;
  for (int i = 0; i < kOthers; ++i) {
    clients.push_back(std::make_unique<HttpClient>(port_));
    clients.back()->Send(Post(Chat(100'000, true)));
    ASSERT_THAT(clients.back()->ReadTo("w4"), ::testing::HasSubstr("200"));
  }
  const auto alone = [&] {
    const absl::Time end = absl::Now() + absl::Milliseconds(kWriteTimeoutMs);
    return MeanGapMs(clients, nullptr, [end] { return absl::Now() > end; });
  };
  const double before = alone();

  // An echo of 3 MB fills every buffer on the way at once, and stays below the hard bound.
  const json echo = {{"model", "source"},
                     {"prompt", std::string(3 << 20, 'x')},
                     {"echo", true},
                     {"stream", true},
                     {"max_tokens", 100'000}};
  const std::string body = echo.dump();
  HttpClient slow(port_, 4096);
  slow.Send(absl::StrCat("POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Length: ",
                         body.size(), "\r\n\r\n", body));
  const absl::Time limit = absl::Now() + absl::Seconds(60);
  const double beside_slow = MeanGapMs(clients, &slow, [&] {
    return Metric("behemoth_stream_slow_reader_total") > 0 || absl::Now() > limit;
  });
  EXPECT_EQ(Metric("behemoth_stream_slow_reader_total"), 1);
  EXPECT_EQ(Metric(R"(behemoth_cancelled_total{stage="decoding"})"), 1);
  // Its worker was not read on: the tokens of kWriteTimeoutMs would be 150.
  EXPECT_LT(Metric("behemoth_generation_tokens_total"), 75);
  EXPECT_TRUE(Until([&] { return source_->streams_open() == kOthers; }));

  const double after = alone();
  std::printf("mean time between tokens: %.2f ms, beside a slow reader %.2f ms, after it %.2f ms\n",
              before, beside_slow, after);
  // Where the others wait for the processor anyway, it is the machine's neighbours that are
  // measured.
  const double alone_ms = std::max(before, after);
  if (alone_ms < 1.1 * absl::ToDoubleMilliseconds(kInterval)) {
    EXPECT_LT(beside_slow, 1.05 * alone_ms);
  }
}

}  // namespace
}  // namespace behemoth::gateway
