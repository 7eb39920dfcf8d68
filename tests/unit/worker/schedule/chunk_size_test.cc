#include "worker/schedule/chunk_size.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <vector>

namespace behemoth::worker {
namespace {

constexpr int32_t kDecodes = 8;
constexpr absl::Duration kTarget = absl::Milliseconds(50);

// Milliseconds of a step that computes `tokens` in all, its chunk of `prompt` tokens at `context`.
using Device = std::function<double(int32_t tokens, int32_t prompt, int32_t context)>;

// 10 ms and 0.1 ms for every token.
double Even(int32_t tokens, int32_t, int32_t) { return 10 + 0.1 * tokens; }
// An H100 with the 123B model: windows of 32, 64 and 96 rows, of which each costs a little more,
// and then one that costs half as much again; attention adds 9 ms to 88 tokens behind 8,192.
double Stairs(int32_t tokens, int32_t prompt, int32_t context) {
  const double window[] = {24, 27, 35, 40, 57, 86, 93, 110, 125};
  return window[std::min((tokens + 31) / 32, 8)] + 9.0 * prompt * context / (88 * 8192);
}

// The same with its windows of 80 rows as well, measured on 2026-11-25: 38, 40.5, then 56 and 90
// ms.
double Windows(int32_t tokens, int32_t, int32_t context) {
  const double window = tokens <= 16    ? 24
                        : tokens <= 32  ? 27
                        : tokens <= 64  ? 37
                        : tokens <= 80  ? 38
                        : tokens <= 96  ? 41
                        : tokens <= 128 ? 56
                                        : 90;
  return window + 9.7 * context / 8192;
}

ChunkSize::Step StepOf(int32_t decodes, int32_t prompt, int32_t context) {
  return {decodes, prompt, ChunkSize::Attended(prompt, context)};
}

// Every step of a prompt of 8,192 tokens beside the decodes, in milliseconds.
std::vector<double> Prefill(ChunkSize& chunk, const Device& device, int32_t decodes = kDecodes) {
  std::vector<double> steps;
  for (int32_t at = 0; at < 8192;) {
    const int32_t tokens = std::min(chunk.Tokens(decodes, at), 8192 - at);
    steps.push_back(device(decodes + tokens, tokens, at));
    chunk.Observe(StepOf(decodes, tokens, at), absl::Milliseconds(steps.back()));
    at += tokens;
  }
  return steps;
}

ChunkSize Warm(int32_t multiple, const Device& device, int prompts = 3) {
  ChunkSize chunk(2048, multiple, kTarget);
  for (int i = 0; i < 10; ++i) {
    chunk.Observe(StepOf(kDecodes, 0, 0), absl::Milliseconds(device(kDecodes, 0, 0)));
  }
  for (int i = 0; i < prompts; ++i) Prefill(chunk, device);
  return chunk;
}

TEST(ChunkSizeTest, WithoutATargetTheLargestChunkIsAllowed) {
  ChunkSize chunk(2048, 1, absl::ZeroDuration());
  chunk.Observe(StepOf(1, 2048, 0), absl::Seconds(10));
  EXPECT_EQ(chunk.Tokens(1, 0), 2048);
}

TEST(ChunkSizeTest, BeforeAnyMeasurementAChunkIsCautious) {
  EXPECT_EQ(ChunkSize(2048, 1, kTarget).Tokens(1, 0), ChunkSize::kFirst);
  EXPECT_EQ(ChunkSize(16, 1, kTarget).Tokens(1, 0), 16);
}

TEST(ChunkSizeTest, ConvergesToWhatFitsTheTarget) {
  const ChunkSize chunk = Warm(1, Even);
  // (50 - 10) / 0.1 - 8; the last grain would have to be tried.
  EXPECT_NEAR(chunk.Tokens(kDecodes, 0), 392, 2 * ChunkSize::kSmallestGrain);
}

TEST(ChunkSizeTest, AChunkAndTheDecodesFillWholeWindows) {
  const ChunkSize chunk = Warm(32, Stairs);
  for (const int32_t decodes : {1, 8, 40}) {
    EXPECT_EQ(chunk.Tokens(decodes, 0), 96 - decodes);
  }
}

// Attention must not be learned into the table: then each prompt would be slower than the last.
TEST(ChunkSizeTest, TheTenthPromptIsAsFastAsTheFirst) {
  ChunkSize chunk = Warm(16, Windows, /*prompts=*/1);
  const size_t first = Prefill(chunk, Windows).size();
  for (int i = 0; i < 10; ++i) Prefill(chunk, Windows);
  EXPECT_LE(Prefill(chunk, Windows).size(), first + 8);
}

// What the moving averages have seen once holds for the next prompt: no step is over the target.
TEST(ChunkSizeTest, NoStepIsOverTheTargetWhereverThePromptIs) {
  ChunkSize chunk = Warm(32, Stairs);
  const std::vector<double> steps = Prefill(chunk, Stairs);
  EXPECT_LE(*std::max_element(steps.begin(), steps.end()), 50.5);
  EXPECT_LE(steps.size(), 95);  // 94 of 88 tokens: all of them the largest that fits
}

// Already the first prompt's steps stay near it: what was never seen is approached from below.
TEST(ChunkSizeTest, TheFirstPromptTriesNothingWild) {
  ChunkSize chunk = Warm(16, Windows, /*prompts=*/0);
  const std::vector<double> steps = Prefill(chunk, Windows);
  EXPECT_LE(std::count_if(steps.begin(), steps.end(), [](double ms) { return ms > 51; }), 1);
  EXPECT_LE(*std::max_element(steps.begin(), steps.end()), 58);
  EXPECT_LE(steps.size(), 110);
}

TEST(ChunkSizeTest, ALongContextGetsSmallerChunks) {
  const auto long_context = [](int32_t tokens, int32_t prompt, int32_t context) {
    return Stairs(tokens, prompt, 4 * context);
  };
  ChunkSize chunk = Warm(32, long_context);
  EXPECT_EQ(chunk.Tokens(kDecodes, 0), 88);
  EXPECT_LT(chunk.Tokens(kDecodes, 8000), 88);
  const std::vector<double> steps = Prefill(chunk, long_context);
  EXPECT_LE(std::count_if(steps.begin(), steps.end(), [](double ms) { return ms > 51; }), 1);
}

TEST(ChunkSizeTest, FollowsADeviceThatGetsSlower) {
  ChunkSize chunk = Warm(1, Even);
  const auto slower = [](int32_t tokens, int32_t, int32_t) { return 2 * Even(tokens, 0, 0); };
  for (int i = 0; i < 10; ++i) Prefill(chunk, slower);
  EXPECT_NEAR(chunk.Tokens(kDecodes, 0), 142, ChunkSize::kSmallestGrain);  // (50 - 20) / 0.2 - 8
}

TEST(ChunkSizeTest, AnAccidentIsForgotten) {
  ChunkSize chunk = Warm(32, Stairs);
  for (int i = 0; i < 20; ++i) {
    chunk.Observe(StepOf(kDecodes, 88, 0), absl::Milliseconds(70));
  }
  EXPECT_LT(chunk.Tokens(kDecodes, 0), 88);
  for (int i = 0; i < 100; ++i) Prefill(chunk, Stairs);
  EXPECT_EQ(chunk.Tokens(kDecodes, 0), 88);
}

TEST(ChunkSizeTest, AnImpossibleTargetStillLetsPrefillGetOn) {
  ChunkSize chunk(2048, 1, absl::Milliseconds(5));
  for (int i = 0; i < 3; ++i) Prefill(chunk, Even);
  EXPECT_EQ(chunk.Tokens(kDecodes, 0), 24);  // with the decodes two grains: one would leave less
  EXPECT_EQ(chunk.Tokens(16, 0), 16);        // than kSmallest
}

TEST(ChunkSizeTest, AFastDeviceGetsTheLargestChunk) {
  ChunkSize chunk(2048, 1, absl::Seconds(5));
  chunk.Observe(StepOf(kDecodes, 0, 0), absl::Milliseconds(10));
  for (int32_t step = 0; step < 30; ++step) {
    chunk.Observe(StepOf(kDecodes, chunk.Tokens(kDecodes, 0), 0), absl::Milliseconds(20));
  }
  EXPECT_EQ(chunk.Tokens(kDecodes, 0), 2048);
}

TEST(ChunkSizeTest, AClockThatStoodStillSaysNothing) {
  ChunkSize chunk = Warm(1, Even);
  const int32_t before = chunk.Tokens(kDecodes, 0);
  chunk.Observe(StepOf(kDecodes, before, 0), absl::ZeroDuration());
  EXPECT_EQ(chunk.Tokens(kDecodes, 0), before);
}

}  // namespace
}  // namespace behemoth::worker
