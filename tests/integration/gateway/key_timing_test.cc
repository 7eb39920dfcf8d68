// The time that a wrong key takes says nothing of how much of it was right (operations.md 6, 26).
#include <absl/random/random.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "gateway/admission/api_keys.h"

namespace behemoth::gateway {
namespace {

constexpr int kSamples = 100'000;
constexpr size_t kPrefixStep = 9;  // 0, 9, ... 63 of the key's 64 characters are right
constexpr int kPrefixes = 8;
// Of a t statistic. Where eight strings lie in memory alone has given 6.6 on a busy machine; an
// early end gives 650 and more.
constexpr double kThreshold = 50;

const std::string& RightKey() {
  static const std::string key = "sk-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXY";
  return key;
}

// The t statistic of the slope of an ask's time over the length of the right prefix. Lengths come
// in random order, so that what else the machine does meets all alike; the slowest tenth of the
// samples was interrupted and is left out.
double SlopeT(const std::function<void(const std::string& key)>& ask) {
  std::vector<std::string> keys;
  for (int i = 0; i < kPrefixes; ++i) {
    std::string key = RightKey();
    for (size_t c = kPrefixStep * i; c < key.size(); ++c) key[c] = '~';
    keys.push_back(key);
  }
  struct Sample {
    double prefix, ns;
  };
  std::vector<Sample> samples;
  absl::BitGen draw;
  for (int i = 0; i < kSamples; ++i) {
    const int prefix = absl::Uniform(draw, 0, kPrefixes);
    const auto began = std::chrono::steady_clock::now();
    ask(keys[prefix]);
    const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - began;
    samples.push_back({static_cast<double>(prefix), took.count()});
  }
  const auto cut = samples.begin() + kSamples * 9 / 10;
  std::nth_element(samples.begin(), cut, samples.end(),
                   [](const Sample& a, const Sample& b) { return a.ns < b.ns; });
  samples.erase(cut, samples.end());
  const auto n = static_cast<double>(samples.size());
  double mean_x = 0, mean_y = 0, xx = 0, xy = 0, yy = 0;
  for (const auto& [x, y] : samples) {
    mean_x += x / n;
    mean_y += y / n;
  }
  for (const auto& [x, y] : samples) {
    xx += (x - mean_x) * (x - mean_x);
    xy += (x - mean_x) * (y - mean_y);
    yy += (y - mean_y) * (y - mean_y);
  }
  const double r = xy / std::sqrt(xx * yy);
  return r * std::sqrt((n - 2) / (1 - r * r));
}

TEST(KeyTimingTest, AWrongKeysTimeDoesNotDependOnHowMuchOfItIsRight) {
  const ApiKeys keys({RightKey(), "another"}, "");
  const double t = SlopeT(
      [&](const std::string& key) { ASSERT_FALSE(keys.Identify(std::nullopt, key).has_value()); });
  std::printf("t = %.2f over %d samples\n", t, kSamples);
  EXPECT_LT(std::abs(t), kThreshold);
}

// What the test above would see of a comparison that ends at the first difference.
TEST(KeyTimingTest, AnEarlyEndWouldShow) {
  const double t = SlopeT([](const std::string& key) {
    size_t same = 0;
    while (same < key.size() && key[same] == RightKey()[same]) ++same;
    ASSERT_NE(same, key.size());
  });
  std::printf("t = %.2f over %d samples\n", t, kSamples);
  EXPECT_GT(t, kThreshold);
}

}  // namespace
}  // namespace behemoth::gateway
