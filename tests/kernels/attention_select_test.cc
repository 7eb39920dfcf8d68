// SelectDecodeAttention and SelectPrefillAttention, host only: what decides bits follows from the
// shape alone, and what a device cannot hold is refused.
#include <gtest/gtest.h>

#include "kernels/paged_attention/paged_attention.h"

namespace behemoth::kernels {
namespace {

constexpr DeviceLimits kHopper = {90, 132, 227 << 10, 228 << 10, 50 << 20, int64_t{80} << 30};
constexpr DeviceLimits kA100 = {80, 108, 163 << 10, 164 << 10, 40 << 20, int64_t{80} << 30};
constexpr DeviceLimits kRtxPro6000 = {120, 188, 99 << 10, 100 << 10, 128 << 20, int64_t{96} << 30};
constexpr DeviceLimits kAda = {89, 142, 99 << 10, 100 << 10, 72 << 20, int64_t{48} << 30};

AttentionShape Shape(int q_heads, int kv_heads, int head_dim, KvType type = KvType::kBf16) {
  return {.q_heads = q_heads, .kv = {kv_heads, head_dim, type}};
}

TEST(AttentionSelectTest, ChunksFollowFromTheShapeAlone) {
  EXPECT_EQ(SelectDecodeAttention(Shape(96, 8, 128), kHopper).chunks_per_row, 32);
  EXPECT_EQ(SelectDecodeAttention(Shape(96, 8, 128), kAda).chunks_per_row, 32);
  EXPECT_EQ(SelectDecodeAttention(Shape(4, 1, 64), kHopper).chunks_per_row, 64);
  EXPECT_EQ(SelectDecodeAttention(Shape(128, 64, 64), kHopper).chunks_per_row, 16);
}

// Blocks wait for one another at the end of a row: all of them must fit on the device at once.
TEST(AttentionSelectTest, TheWholeDecodeGridFitsOnTheDevice) {
  for (const DeviceLimits& device : {kHopper, kAda, kA100, kRtxPro6000}) {
    for (const KvType type : {KvType::kBf16, KvType::kE4m3}) {
      const DecodeAttentionConfig config = SelectDecodeAttention(Shape(96, 8, 128, type), device);
      const int per_sm = config.blocks / device.sm_count;
      EXPECT_EQ(config.blocks % device.sm_count, 0);
      EXPECT_GE(config.stages, 2);
      EXPECT_LE(per_sm * (config.shared_bytes + 1024), device.shared_bytes_per_sm);
    }
  }
}

TEST(AttentionSelectTest, WarpgroupProductsWhereTheDeviceHasThem) {
  const PrefillAttentionConfig hopper = SelectPrefillAttention(Shape(96, 8, 128), kHopper);
  EXPECT_EQ(hopper.blocks, 132);
  EXPECT_LE(hopper.shared_bytes, kHopper.shared_bytes_per_block);
  for (const DeviceLimits& device : {kAda, kA100, kRtxPro6000}) {
    for (const KvType type : {KvType::kBf16, KvType::kE4m3}) {
      const PrefillAttentionConfig other = SelectPrefillAttention(Shape(96, 8, 128, type), device);
      EXPECT_EQ(other.blocks, 0);
      EXPECT_GT(other.shared_bytes, 0);
      EXPECT_LE(other.shared_bytes, device.shared_bytes_per_block);
    }
  }
}

TEST(AttentionSelectTest, WhatNoKernelRunsIsRefused) {
  for (const AttentionShape& shape : {Shape(96, 8, 96), Shape(10, 4, 128), Shape(0, 8, 128)}) {
    EXPECT_EQ(SelectDecodeAttention(shape, kHopper).blocks, 0);
    EXPECT_EQ(SelectPrefillAttention(shape, kHopper).shared_bytes, 0);
  }
  DeviceLimits tiny = kAda;
  tiny.shared_bytes_per_block = tiny.shared_bytes_per_sm = 32 << 10;
  EXPECT_EQ(SelectDecodeAttention(Shape(96, 8, 128), tiny).blocks, 0);
  EXPECT_EQ(SelectPrefillAttention(Shape(96, 8, 128), tiny).shared_bytes, 0);
}

TEST(AttentionSelectTest, ALaunchOfFewerRowsNeedsLessWorkspace) {
  const AttentionShape shape = Shape(96, 8, 128);
  const DecodeAttentionConfig config = SelectDecodeAttention(shape, kHopper);
  const size_t one = DecodeWorkspaceBytes(shape, config, 1);
  EXPECT_EQ(one, size_t{8} * (16 + 32 * 12 * 130 * sizeof(float)));
  EXPECT_EQ(DecodeWorkspaceBytes(shape, config, 64), 64 * one);
}

}  // namespace
}  // namespace behemoth::kernels
