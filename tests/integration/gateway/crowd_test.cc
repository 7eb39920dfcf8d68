// Many clients at once: slow ones, thousands that come together, workers behind a name.
#include <absl/synchronization/mutex.h>
#include <dirent.h>
#include <gmock/gmock.h>

#include <vector>

#include "gateway/upstream/discovery.h"
#include "proto/support/process.h"
#include "tests/integration/gateway/gateway_fixture.h"

namespace behemoth::gateway {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::IsSubsetOf;

int OpenDescriptors() {
  DIR* const folder = opendir("/proc/self/fd");
  int count = 0;
  while (readdir(folder) != nullptr) ++count;
  closedir(folder);
  return count;
}

// 1,000 clients drip a byte at a time, half of them heads and half bodies. Each is answered 408 and
// closed when its time is over, however busy it looks; others are served all along.
TEST_F(GatewayTest, AThousandSlowClientsAreClosedAndHinderNobody) {
  constexpr int kClients = 1000;
  ASSERT_GT(support::RaiseFileLimit(), 3 * kClients);
  Config config;
  config.http.limits.head_timeout_ms = config.http.limits.body_timeout_ms = 3000;
  Start({}, config);
  const int before = OpenDescriptors();
  const std::string whole = Post(Chat(1, false));
  const size_t head = whole.find("\r\n\r\n") + 4;
  std::vector<std::unique_ptr<HttpClient>> clients;
  const absl::Time began = absl::Now();
  for (int i = 0; i < kClients; ++i) {
    clients.push_back(std::make_unique<HttpClient>(port_));
    clients.back()->Send(whole.substr(0, i % 2 == 0 ? 20 : head));
  }
  ASSERT_TRUE(Until([&] { return Metric("behemoth_http_connections") >= kClients; }));
  // Never the last byte: a body that is whole is answered.
  for (size_t drop = 0; absl::Now() - began < absl::Seconds(2) && head + drop + 1 < whole.size();
       ++drop) {
    for (int i = 0; i < kClients; ++i) {
      clients[i]->Send(whole.substr((i % 2 == 0 ? 20 : head) + drop, 1));
    }
    const absl::Time asked = absl::Now();
    EXPECT_EQ(Ask(Chat(2, false)).status, 200);
    EXPECT_LT(absl::Now() - asked, absl::Seconds(2));
  }
  for (auto& client : clients) {
    EXPECT_THAT(client->ReadToEnd(), HasSubstr("HTTP/1.1 408"));
    EXPECT_TRUE(client->ended());
  }
  clients.clear();
  EXPECT_TRUE(Until([&] { return OpenDescriptors() <= before; })) << OpenDescriptors();
  EXPECT_EQ(Ask(Chat(2, false)).status, 200);
}

// Whoever has a ticket also finds room in the template's queue: no burst below the in-flight limit
// is refused.
TEST_F(GatewayTest, ABurstOfThousandsOfStreamsOpensWhole) {
  constexpr int kStreams = 5000;
  ASSERT_GT(support::RaiseFileLimit(), 2 * kStreams + 1000);
  Start({.stall_after = 1});
  const std::string request = Post(Chat(9, true));
  std::vector<std::unique_ptr<HttpClient>> clients;
  for (int i = 0; i < kStreams; ++i) {
    clients.push_back(std::make_unique<HttpClient>(port_));
    ASSERT_TRUE(clients.back()->connected()) << i;
  }
  for (auto& client : clients) client->Send(request);
  int open = 0;
  for (auto& client : clients) open += client->ReadTo("w3").find("HTTP/1.1 200") == 0;
  EXPECT_EQ(open, kStreams);
  EXPECT_EQ(Metric("behemoth_requests_in_flight"), kStreams);
  clients.clear();
  EXPECT_TRUE(Until([&] { return Metric("behemoth_requests_in_flight") == 0; }, absl::Seconds(30)));
}

// A name stands for all its addresses. Those where nobody listens (localhost is ::1 as well, the
// source is not) cost the others nothing.
TEST_F(GatewayTest, WorkersAreFoundBehindAName) {
  Start({}, {}, "dns:///localhost");
  for (int i = 0; i < 20; ++i) EXPECT_EQ(Ask(Chat(2, false)).status, 200);
}

TEST(DiscoveryTest, ANameIsAllItsAddressesAndAListIsItself) {
  std::vector<std::string> found;
  const auto keep = [&](std::vector<std::string> addresses) { found = std::move(addresses); };
  Discovery by_name({"dns:///localhost:7"}, absl::Hours(1), keep);
  EXPECT_THAT(found, Contains("127.0.0.1:7"));
  EXPECT_THAT(found, IsSubsetOf({"127.0.0.1:7", "[::1]:7"}));
  Discovery list({"b:2", "a:1", "b:2"}, absl::Hours(1), keep);
  EXPECT_THAT(found, ElementsAre("a:1", "b:2"));
  Discovery nobody({"dns:///no-such-name.invalid:7"}, absl::Hours(1), keep);
  EXPECT_THAT(found, IsEmpty());
}

TEST(DiscoveryTest, NamesAreAskedAgain) {
  absl::Mutex mutex;
  int asked = 0;
  Discovery discovery({"dns:///localhost:7"}, absl::Milliseconds(5),
                      [&](const std::vector<std::string>&) {
                        absl::MutexLock lock(&mutex);
                        ++asked;
                      });
  absl::MutexLock lock(&mutex);
  EXPECT_TRUE(mutex.AwaitWithTimeout(
      absl::Condition(+[](int* count) { return *count >= 3; }, &asked), absl::Seconds(10)));
}

}  // namespace
}  // namespace behemoth::gateway
