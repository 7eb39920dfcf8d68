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

TEST(AdmissionTest, AKeysOwnLimitsReplaceTheGateways) {
  Admission admission({.key_in_flight = 1, .key_requests_per_minute = 1});
  const KeyLimits wide = {.in_flight = 2, .requests_per_minute = 0};
  auto a1 = admission.Enter("a", kNow, wide), a2 = admission.Enter("a", kNow, wide);
  EXPECT_EQ(HttpOf(a2), 200);
  EXPECT_EQ(HttpOf(admission.Enter("a", kNow, wide)), 429);
  auto b1 = admission.Enter("b", kNow);
  EXPECT_EQ(HttpOf(b1), 200);
  EXPECT_EQ(HttpOf(admission.Enter("b", kNow)), 429);
}

// Identify's answer as a name: "" = open, "-" = nobody of ours.
std::string IdOf(const std::optional<Caller>& caller) { return caller ? caller->id : "-"; }

TEST(ApiKeysTest, OnlyTheExactKeyIsOne) {
  const ApiKeys keys({"sk-Secret", "other"}, "");
  const std::string known = IdOf(keys.Identify("Bearer sk-Secret", std::nullopt));
  ASSERT_EQ(known.size(), 16u);
  EXPECT_EQ(IdOf(keys.Identify("bearer sk-Secret", std::nullopt)), known);  // a scheme has no case
  EXPECT_EQ(IdOf(keys.Identify(std::nullopt, "sk-Secret")), known);
  EXPECT_NE(IdOf(keys.Identify("Bearer other", std::nullopt)), known);
  EXPECT_EQ(known.find("Secret"), std::string::npos);
  for (const char* wrong :
       {"Bearer sk-secret", "Bearer sk-Secre", "Bearer sk-Secrets", "Bearer  sk-Secret",
        "Bearer sk-Secret ", "Bearer ", "Bearer", "sk-Secret", "Basic sk-Secret", ""}) {
    EXPECT_FALSE(keys.Identify(wrong, std::nullopt)) << wrong;
  }
  EXPECT_FALSE(keys.Identify(std::nullopt, std::nullopt));
  EXPECT_FALSE(keys.Identify("Basic x", "sk-Secret"));  // a wrong one beside a right one
  EXPECT_EQ(IdOf(ApiKeys({}, "").Identify(std::nullopt, std::nullopt)), "");
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

TEST(ApiKeysTest, ALineMayHoldAHashAScopeAndLimits) {
  const std::string file = ::testing::TempDir() + "/behemoth_hashed_keys";
  // printf %s sk-Secret | sha256sum
  std::ofstream(file) << "sha256:"
                      << "8d3f5953e9775688036d7ccb4076f71d9297a5b2b29f77184e9fa311c383fb04\n"
                      << "root scope=admin\nfew  in-flight=2\tper-minute=0 scope=user\n";
  ApiKeys keys({}, file);
  ASSERT_TRUE(keys.Reload().ok());
  const auto root = keys.Identify("Bearer root", std::nullopt);
  ASSERT_TRUE(root);
  EXPECT_TRUE(root->admin);
  const auto few = keys.Identify("Bearer few", std::nullopt);
  ASSERT_TRUE(few);
  EXPECT_FALSE(few->admin);
  EXPECT_EQ(few->limits.in_flight, 2);
  EXPECT_EQ(few->limits.requests_per_minute, 0);
  EXPECT_TRUE(keys.Identify("Bearer sk-Secret", std::nullopt));
  EXPECT_FALSE(keys.Identify("Bearer sk-Secret scope=admin", std::nullopt));
}

TEST(ApiKeysTest, ABadLineIsNamedByItsNumberAndNeverShown) {
  const std::string file = ::testing::TempDir() + "/behemoth_bad_keys";
  for (const char* bad : {"hidden scope=root", "hidden in-flight=-1", "hidden per-minute=x",
                          "hidden 5", "sha256:hidden", "sha256:00ff scope=user"}) {
    std::ofstream(file) << "good\n" << bad << "\n";
    const absl::Status status = ApiKeys({}, file).Reload();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_NE(status.message().find("line 2:"), absl::string_view::npos) << status;
    EXPECT_EQ(status.message().find("hidden"), absl::string_view::npos) << status;
  }
}

}  // namespace
}  // namespace behemoth::gateway
