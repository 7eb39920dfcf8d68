// The packed weight layout that every GEMM kernel of this folder reads; drawn in README.md.
//
// A matrix [n, k] is cut into units of 256 rows x kUnitK columns (128 for int4, 32 for bf16),
// stored [row tile][k unit], so one row tile is one contiguous stream. Rows are padded with zero
// weights to a multiple of 256. An int4 unit is four blobs of 64 rows; a blob is 4,096 B of nibbles
// in the order of the tensor core's A fragments, then, for each group, its 64 scales (and 64
// offsets, with zero points). Constants and index arithmetic only; host and device.
#pragma once

#include <cstdint>

#include "kernels/common/bf16.h"

namespace behemoth::kernels {

enum class WeightKind {
  kInt4,           // weight = (q - 8) * scale, one bf16 rounding; groups of 128 columns
  kInt4ZeroPoint,  // weight = (q - zero) * scale, zero in 0..16 per row and group
  kBf16,
  kInt4Group64,  // as the first two, with groups of 64 or 32 columns
  kInt4ZeroPointGroup64,
  kInt4Group32,
  kInt4ZeroPointGroup32,
};

inline constexpr int kUnitRows = 256;
inline constexpr int kBlobRows = 64;
inline constexpr int kInt4UnitColumns = 128;

BEHEMOTH_HOST_DEVICE constexpr bool HasZeroPoints(WeightKind kind) {
  return kind == WeightKind::kInt4ZeroPoint || kind == WeightKind::kInt4ZeroPointGroup64 ||
         kind == WeightKind::kInt4ZeroPointGroup32;
}
// Groups (columns that share a scale) of an int4 unit.
BEHEMOTH_HOST_DEVICE constexpr int UnitGroups(WeightKind kind) {
  switch (kind) {
    case WeightKind::kInt4Group64:
    case WeightKind::kInt4ZeroPointGroup64:
      return 2;
    case WeightKind::kInt4Group32:
    case WeightKind::kInt4ZeroPointGroup32:
      return 4;
    default:
      return 1;
  }
}
BEHEMOTH_HOST_DEVICE constexpr int UnitColumns(WeightKind kind) {
  return kind == WeightKind::kBf16 ? 32 : kInt4UnitColumns;
}
// Bytes of one group's scales (and offsets) behind the nibbles of one blob.
BEHEMOTH_HOST_DEVICE constexpr int BlobGroupBytes(WeightKind kind) {
  return HasZeroPoints(kind) ? 256 : 128;
}
BEHEMOTH_HOST_DEVICE constexpr int BlobBytes(WeightKind kind) {
  return kBlobRows * kInt4UnitColumns / 2 + UnitGroups(kind) * BlobGroupBytes(kind);
}
BEHEMOTH_HOST_DEVICE constexpr int UnitBytes(WeightKind kind) {
  return kind == WeightKind::kBf16 ? kUnitRows * 32 * 2 : kUnitRows / kBlobRows * BlobBytes(kind);
}
static_assert(UnitBytes(WeightKind::kInt4) == 16'896 && UnitBytes(WeightKind::kInt4) % 128 == 0);
static_assert(UnitBytes(WeightKind::kInt4ZeroPoint) == 17'408 && 17'408 % 128 == 0);

BEHEMOTH_HOST_DEVICE constexpr int RowTiles(int n) { return (n + kUnitRows - 1) / kUnitRows; }

// Symmetric kinds keep scale * 2^129 (fragments.cuh says why), so a scale must be below 1/2:
// weights up to 4. Larger ones become infinite; repack.h refuses them.
inline constexpr float kScaleLimit = 0.5f;
BEHEMOTH_HOST_DEVICE inline bf16 PackedScale(bf16 scale) {
  return ToBf16(ToFloat(scale) * 0x1p100f * 0x1p29f);
}

// Size of a packed matrix. n >= 1; k a positive multiple of UnitColumns(kind).
BEHEMOTH_HOST_DEVICE constexpr int64_t PackedBytes(WeightKind kind, int n, int k) {
  return int64_t{1} * RowTiles(n) * (k / UnitColumns(kind)) * UnitBytes(kind);
}

// Which source row lies at packed row `row`; -1 for padding.
// Interleaved: the source is [gate; up], n / 2 rows each; every 16 packed rows are 8 rows of gate
// and the same 8 of up, so that one thread's accumulators hold both and SiLU(gate) * up needs no
// exchange.
BEHEMOTH_HOST_DEVICE constexpr int SourceRow(int row, int n, bool interleave_halves) {
  if (!interleave_halves) return row < n ? row : -1;
  const int half_row = row / 16 * 8 + row % 8;
  if (half_row >= n / 2) return -1;
  return row % 16 < 8 ? half_row : n / 2 + half_row;
}

// Rows of activations a kernel is built for: the batch is padded to one of 8, 16, 32, 64.
BEHEMOTH_HOST_DEVICE constexpr int PaddedRows(int m) {
  return m <= 8 ? 8 : m <= 16 ? 16 : m <= 32 ? 32 : 64;
}
inline constexpr int kMaxDecodeRows = 64;

// Activation layout [k / 8][padded_rows][8] bf16: element (row, column) of the batch.
BEHEMOTH_HOST_DEVICE constexpr int64_t ActivationIndex(int row, int column, int padded_rows) {
  return (int64_t{1} * (column / 8) * padded_rows + row) * 8 + column % 8;
}

}  // namespace behemoth::kernels
