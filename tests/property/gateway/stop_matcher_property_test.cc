// What StopMatcher holds back, and what a hostile set of stops costs.
#include "gateway/text/stop_matcher.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/property/gateway/text_oracle.h"

namespace behemoth::gateway {
namespace {

constexpr int kCases = 100'000;

std::string Word(std::mt19937_64& random, size_t min_bytes, size_t max_bytes) {
  std::string word(min_bytes + random() % (max_bytes - min_bytes + 1), 'a');
  for (char& c : word) c = static_cast<char>('a' + random() % 2);
  return word;
}

// The longest end of `text` that a stop begins with, and is not the whole of.
size_t LongestHope(std::string_view text, std::span<const std::string> stops) {
  for (size_t bytes = std::min<size_t>(text.size(), 16); bytes > 0; --bytes) {
    for (const std::string& stop : stops) {
      if (stop.size() > bytes && stop.starts_with(text.substr(text.size() - bytes))) return bytes;
    }
  }
  return 0;
}

TEST(StopMatcherPropertyTest, OnlyWhatCouldBecomeAStopIsHeldBack) {
  const auto seed = static_cast<uint64_t>(GTEST_FLAG_GET(random_seed));
  for (int i = 0; i < kCases; ++i) {
    std::mt19937_64 random(seed * 1'000'003 + i);
    std::vector<std::string> stops;
    for (size_t n = 1 + random() % 3; n > 0; --n) stops.push_back(Word(random, 1, 8));
    const std::string text = Word(random, 0, 24);
    SCOPED_TRACE("seed " + std::to_string(seed) + " case " + std::to_string(i) + " stops " +
                 testing::PrintToString(stops) + " text " + text);
    StopMatcher matcher(std::make_shared<StopSet>(stops));
    const auto found = oracle::FindStop(text, stops);
    std::string out;
    bool stopped = false;
    for (size_t at = 0; at < text.size() && !stopped; ++at) {
      stopped = matcher.Push(text.substr(at, 1), out);
      const std::string_view seen = std::string_view(text).substr(0, at + 1);
      if (!stopped && !oracle::FindStop(seen, stops)) {
        ASSERT_EQ(out.size(), seen.size() - LongestHope(seen, stops));
      }
      ASSERT_EQ(matcher.match().has_value(), stopped);
    }
    if (!stopped) stopped = matcher.Flush(out);
    ASSERT_EQ(stopped, found.has_value());
    ASSERT_EQ(out, text.substr(0, found ? found->position : text.size()));
    if (found) {
      ASSERT_EQ(stops[*matcher.match()], stops[found->index]);
    }
    ASSERT_EQ(matcher.held_bytes(), 0u);
  }
}

TEST(StopMatcherPropertyTest, ADecidedMatchEndsAtOnce) {
  const std::string stops[] = {"ab", "abcdefgh", "bcd"};
  StopMatcher matcher(std::make_shared<StopSet>(stops));
  std::string out;
  EXPECT_FALSE(matcher.Push("xa", out));
  EXPECT_TRUE(matcher.Push("b", out));  // no other stop can begin earlier
  EXPECT_EQ(out, "x");
}

// 64 stops of 256 bytes that are almost the text, 4 MB of it: linear, or this would take hours.
TEST(StopMatcherPropertyTest, HostileStopsCostTheSamePerByte) {
  std::vector<std::string> stops;
  for (int i = 0; i < 64; ++i) {
    stops.push_back(std::string(192 + i, 'a') + 'b');
  }
  StopMatcher matcher(std::make_shared<StopSet>(stops));
  const std::string piece(1 << 12, 'a');
  std::string out;
  for (int i = 0; i < 1 << 10; ++i) ASSERT_FALSE(matcher.Push(piece, out));
  EXPECT_EQ(matcher.held_bytes(), 255u);
  EXPECT_TRUE(matcher.Push("b", out));
  EXPECT_EQ(out.size() + 255, piece.size() << 10);
}

}  // namespace
}  // namespace behemoth::gateway
