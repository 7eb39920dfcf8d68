#include "gateway/admission/admission.h"

#include <absl/time/clock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <numeric>
#include <random>
#include <vector>

#include "gateway/admission/api_keys.h"
#include "gateway/api/api_error.h"

namespace behemoth::gateway {
namespace {

const absl::Time kNow = absl::FromUnixSeconds(1'000'000);

int HttpOf(const absl::StatusOr<Ticket>& ticket) {
  return ticket.ok() ? 200 : ToApiError(ticket.status()).http;
}

TEST(AdmissionTest, TheServiceFullIs503AndOneKeyOverItsShareIs429) {
  Admission admission({.max_in_flight = 3, .key_in_flight = 2});
  auto a1 = admission.Enter("a", kNow), a2 = admission.Enter("a", kNow);
  auto a3 = admission.Enter("a", kNow);
  EXPECT_EQ(HttpOf(a3), 429);
  EXPECT_GT(ToApiError(a3.status()).retry_after_s.value_or(0), 0);
  auto b1 = admission.Enter("b", kNow);
  ASSERT_EQ(HttpOf(b1), 200);
  EXPECT_EQ(HttpOf(admission.Enter("c", kNow)), 503);
  {
    Ticket gone = *std::move(a1);
  }
  EXPECT_EQ(HttpOf(admission.Enter("c", kNow)), 200);  // its ticket goes at once
  EXPECT_EQ(admission.in_flight(), 2);
}

// What tells a wrong key's time: the difference of two means, in its own standard errors and as a
// share of the call.
struct Slope {
  double standard_errors = 0, share = 0;
};

// `answer` for a wrong key that shares no byte with the right one and for one that shares all but
// the last, in random order in one buffer. The slowest tenth is the machine's, not ours.
Slope SlopeOfSharedPrefix(const std::string& right,
                          const std::function<bool(std::string_view)>& answer) {
  constexpr size_t kSamples = 50'000;
  std::mt19937 random(7);
  std::vector<double> times[2];
  std::string key = right;
  while (times[0].size() + times[1].size() < 2 * kSamples) {
    const size_t shared = random() % 2;
    for (size_t i = 0; i + 1 < key.size(); ++i) key[i] = shared ? right[i] : 'x';
    key.back() = '!';
    const absl::Time began = absl::Now();
    EXPECT_FALSE(answer(key));
    times[shared].push_back(absl::ToDoubleNanoseconds(absl::Now() - began));
  }
  double mean[2], error[2];
  for (int shared : {0, 1}) {
    std::vector<double>& all = times[shared];
    std::sort(all.begin(), all.end());
    all.resize(all.size() * 9 / 10);
    const double n = static_cast<double>(all.size());
    mean[shared] = std::accumulate(all.begin(), all.end(), 0.0) / n;
    double squares = 0;
    for (const double time : all) squares += (time - mean[shared]) * (time - mean[shared]);
    error[shared] = squares / n / n;
  }
  const double difference = mean[1] - mean[0];
  return {.standard_errors = difference / std::sqrt(error[0] + error[1]),
          .share = difference / mean[0]};
}

TEST(ApiKeysTest, AWrongKeysTimeDoesNotTellHowMuchOfItIsRight) {
  const std::string right = "sk-" + std::string(1021, 'k');
  const ApiKeys keys({right}, "");
  const Slope ours = SlopeOfSharedPrefix(
      right, [&](std::string_view key) { return keys.Identify(std::nullopt, key).has_value(); });
  // The same measurement sees a comparison that stops at the first difference.
  const Slope naive = SlopeOfSharedPrefix(right, [&](std::string_view key) {
    volatile size_t same = 0;
    while (same < key.size() && key[same] == right[same]) same = same + 1;
    return same == key.size();
  });
  EXPECT_TRUE(std::abs(ours.standard_errors) < 5 || std::abs(ours.share) < 0.02)
      << ours.standard_errors << " standard errors, " << 100 * ours.share << " %";
  EXPECT_GT(naive.standard_errors, 20);
  EXPECT_GT(naive.share, 0.2);
}

TEST(AdmissionTest, ATicketIsGivenBackOnceHoweverItMoves) {
  Admission admission({});
  {
    Ticket a = *admission.Enter("a", kNow);
    Ticket b = std::move(a);
    Ticket c;
    c = std::move(b);
    EXPECT_EQ(admission.in_flight(), 1);
  }
  EXPECT_EQ(admission.in_flight(), 0);
  EXPECT_TRUE(admission.WaitIdle(absl::ZeroDuration()));
}

TEST(AdmissionTest, RequestsPerMinuteFlowBackWithTime) {
  Admission admission({.key_requests_per_minute = 60});
  for (int i = 0; i < 60; ++i) EXPECT_EQ(HttpOf(admission.Enter("a", kNow)), 200) << i;
  const auto over = admission.Enter("a", kNow);
  EXPECT_EQ(HttpOf(over), 429);
  EXPECT_EQ(ToApiError(over.status()).retry_after_s, 1);
  EXPECT_EQ(HttpOf(admission.Enter("b", kNow)), 200);
  EXPECT_EQ(HttpOf(admission.Enter("a", kNow + absl::Seconds(1))), 200);
  EXPECT_EQ(HttpOf(admission.Enter("a", kNow + absl::Seconds(1))), 429);
  EXPECT_EQ(HttpOf(admission.Enter("a", kNow - absl::Hours(1))), 429);  // a clock set back
}

TEST(AdmissionTest, DrainingRefusesWhatIsNewAndKeepsWhatRuns) {
  Admission admission({});
  auto running = admission.Enter("a", kNow);
  admission.Drain();
  EXPECT_EQ(HttpOf(admission.Enter("a", kNow)), 503);
  EXPECT_EQ(admission.in_flight(), 1);
  EXPECT_FALSE(admission.WaitIdle(absl::ZeroDuration()));
}

TEST(ApiKeysTest, OnlyTheExactKeyIsOne) {
  const ApiKeys keys({"sk-Secret", "other"}, "");
  const auto known = keys.Identify("Bearer sk-Secret", std::nullopt);
  ASSERT_TRUE(known);
  EXPECT_EQ(keys.Identify("bearer sk-Secret", std::nullopt), known);  // a scheme has no case
  EXPECT_EQ(keys.Identify(std::nullopt, "sk-Secret"), known);
  EXPECT_NE(keys.Identify("Bearer other", std::nullopt), known);
  EXPECT_EQ(known->find("Secret"), std::string::npos);
  for (const char* wrong :
       {"Bearer sk-secret", "Bearer sk-Secre", "Bearer sk-Secrets", "Bearer  sk-Secret",
        "Bearer sk-Secret ", "Bearer ", "Bearer", "sk-Secret", "Basic sk-Secret", ""}) {
    EXPECT_FALSE(keys.Identify(wrong, std::nullopt)) << wrong;
  }
  EXPECT_FALSE(keys.Identify(std::nullopt, std::nullopt));
  EXPECT_FALSE(keys.Identify("Basic x", "sk-Secret"));  // a wrong one beside a right one
  EXPECT_EQ(ApiKeys({}, "").Identify(std::nullopt, std::nullopt), "");
}

TEST(ApiKeysTest, AFileIsReadAgainAndABadOneLeavesTheOldKeys) {
  const std::string file = ::testing::TempDir() + "/behemoth_keys";
  const auto write = [&](const std::string& text) { std::ofstream(file) << text; };
  write("# keys\n\n one \ntwo\n");
  ApiKeys keys({}, file);
  ASSERT_TRUE(keys.Reload().ok());
  EXPECT_TRUE(keys.Identify("Bearer one", std::nullopt));
  write("three\n");
  keys.ReloadIfChanged();
  EXPECT_FALSE(keys.Identify("Bearer one", std::nullopt));
  EXPECT_TRUE(keys.Identify("Bearer three", std::nullopt));
  write("# nothing\n");
  keys.ReloadIfChanged();
  EXPECT_TRUE(keys.Identify("Bearer three", std::nullopt));
  std::remove(file.c_str());
  keys.ReloadIfChanged();
  EXPECT_TRUE(keys.Identify("Bearer three", std::nullopt));
  EXPECT_FALSE(ApiKeys({}, file).Reload().ok());
}

}  // namespace
}  // namespace behemoth::gateway
