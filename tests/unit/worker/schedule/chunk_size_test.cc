#include "worker/schedule/chunk_size.h"

#include <gtest/gtest.h>

namespace behemoth::worker {
namespace {

// A device whose step takes 10 ms and 0.1 ms more for every prompt token.
absl::Duration StepTime(int32_t prompt_tokens) {
  return absl::Milliseconds(10) + prompt_tokens * absl::Microseconds(100);
}

TEST(ChunkSizeTest, WithoutATargetTheLargestChunkIsAllowed) {
  ChunkSize chunk(2048, absl::ZeroDuration());
  chunk.Observe(0, StepTime(0));
  chunk.Observe(2048, absl::Seconds(10));
  EXPECT_EQ(chunk.tokens(), 2048);
}

TEST(ChunkSizeTest, BeforeAnyMeasurementAChunkIsCautious) {
  EXPECT_EQ(ChunkSize(2048, absl::Milliseconds(50)).tokens(), 4 * ChunkSize::kSmallest);
  EXPECT_EQ(ChunkSize(16, absl::Milliseconds(50)).tokens(), 16);
}

TEST(ChunkSizeTest, ConvergesToWhatFitsTheTarget) {
  ChunkSize chunk(2048, absl::Milliseconds(50));
  for (int step = 0; step < 60; ++step) {
    chunk.Observe(0, StepTime(0));
    chunk.Observe(chunk.tokens(), StepTime(chunk.tokens()));
  }
  EXPECT_NEAR(chunk.tokens(), 400, 20);  // (50 - 10) / 0.1
  EXPECT_LE(StepTime(chunk.tokens()), absl::Milliseconds(52));
}

TEST(ChunkSizeTest, FollowsADeviceThatGetsSlower) {
  ChunkSize chunk(2048, absl::Milliseconds(50));
  for (int step = 0; step < 60; ++step) {
    chunk.Observe(0, 2 * StepTime(0));
    chunk.Observe(chunk.tokens(), 2 * StepTime(chunk.tokens()));
  }
  EXPECT_NEAR(chunk.tokens(), 150, 10);  // (50 - 20) / 0.2
}

TEST(ChunkSizeTest, AnImpossibleTargetStillLetsPrefillGetOn) {
  ChunkSize chunk(2048, absl::Milliseconds(5));
  for (int step = 0; step < 60; ++step) {
    chunk.Observe(0, StepTime(0));
    chunk.Observe(chunk.tokens(), StepTime(chunk.tokens()));
  }
  EXPECT_EQ(chunk.tokens(), ChunkSize::kSmallest);
}

TEST(ChunkSizeTest, AFastDeviceGetsTheLargestChunk) {
  ChunkSize chunk(2048, absl::Seconds(5));
  chunk.Observe(0, StepTime(0));
  chunk.Observe(128, StepTime(128));
  EXPECT_EQ(chunk.tokens(), 2048);
}

TEST(ChunkSizeTest, AChunkNoSlowerThanADecodeIsNoReasonToDivideByZero) {
  ChunkSize chunk(2048, absl::Milliseconds(50));
  chunk.Observe(0, absl::Milliseconds(10));
  chunk.Observe(100, absl::Milliseconds(9));
  EXPECT_EQ(chunk.tokens(), 2048);
  chunk.Observe(100, absl::ZeroDuration());  // a clock that stood still says nothing
  EXPECT_EQ(chunk.tokens(), 2048);
}

}  // namespace
}  // namespace behemoth::worker
