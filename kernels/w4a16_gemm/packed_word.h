// The packed layout as a function: the value of 32-bit word `index` of a packed matrix, gathered
// from the source. RepackInt4/RepackBf16 call it in a loop, their kernels once per thread.
#pragma once

#include <cstdint>

#include "kernels/w4a16_gemm/packed_layout.h"
#include "kernels/w4a16_gemm/repack.h"

namespace behemoth::kernels {

// Where a word of an A fragment (m16n8k16) comes from: lane = 4 * (row % 8) + column pair.
struct FragmentLane {
  int row;   // 0..7; registers 1 and 3 hold row + 8
  int pair;  // 0..3: columns 2 * pair and 2 * pair + 1; registers 2 and 3 hold those + 8
};
BEHEMOTH_HOST_DEVICE constexpr FragmentLane LaneOf(int lane) { return {lane / 4, lane % 4}; }

// The nibbles of columns (column, column + 1) of a source row as bits 0..3 and 16..19; column even.
BEHEMOTH_HOST_DEVICE inline uint32_t NibblePair(const Int4Source& source, int row, int column) {
  if (row < 0) return 0x00080008u;  // padding: zero weights whatever the scale
  const uint32_t word = source.weight[int64_t{row} * (source.k / 8) + column / 8];
  const uint32_t pair = word >> (4 * (column % 8));
  return (pair & 0xfu) | ((pair & 0xf0u) << 12);
}

// Two bf16 of a scale word: (row, row + 8) of one group. Offsets are -(128 + zero), zero <= 16,
// exact in bf16, whose step is 1 there.
BEHEMOTH_HOST_DEVICE inline uint32_t ScaleBits(const Int4Source& source, int row, int group) {
  if (row < 0) return 0u;
  const bf16 scale = source.scale[int64_t{row} * (source.k / source.group_columns) + group];
  if (source.zero_point != nullptr) return scale.bits;
  const bf16 packed = PackedScale(scale);
  if (source.too_large != nullptr && (packed.bits & 0x7f80u) == 0x7f80u) *source.too_large = 1;
  return packed.bits;
}
BEHEMOTH_HOST_DEVICE inline uint32_t OffsetBits(const Int4Source& source, int row, int group) {
  const int64_t index = int64_t{row} * (source.k / source.group_columns) + group;
  const uint32_t zero = row < 0 ? 8u : source.zero_point[index];
  return 0xc300u + zero;
}

BEHEMOTH_HOST_DEVICE inline uint32_t PackedInt4Word(const Int4Source& source, int64_t index) {
  const WeightKind kind = KindOf(source);
  const int blob_words = BlobBytes(kind) / 4;
  const int word = static_cast<int>(index % blob_words);
  const int64_t blob = index / blob_words;
  const int units = source.k / kInt4UnitColumns;
  const int unit = static_cast<int>(blob / 4 % units);
  const int first_row =
      static_cast<int>(blob / 4 / units) * kUnitRows + static_cast<int>(blob % 4) * kBlobRows;
  constexpr int kNibbleWords = kBlobRows * kInt4UnitColumns / 8;
  if (word >= kNibbleWords) {
    const bool zeros = HasZeroPoints(kind);
    const int group_words = BlobGroupBytes(kind) / 4;
    const int entry = (word - kNibbleWords) % group_words;
    const int group = unit * UnitGroups(kind) + (word - kNibbleWords) / group_words;
    const int pair = zeros ? entry / 2 : entry;  // pair = 8 * m-tile + row of the pair
    const int low_row = first_row + pair / 8 * 16 + pair % 8;
    const int low = SourceRow(low_row, source.n, source.interleave_halves);
    const int high = SourceRow(low_row + 8, source.n, source.interleave_halves);
    if (zeros && entry % 2 == 1) {
      return OffsetBits(source, low, group) | OffsetBits(source, high, group) << 16;
    }
    return ScaleBits(source, low, group) | ScaleBits(source, high, group) << 16;
  }
  // Nibble words: [m-tile 4][k64 2][lane 32][k16 4].
  const int k16 = word % 4, k64 = word / 128 % 2, m_tile = word / 256;
  const FragmentLane lane = LaneOf(word / 4 % 32);
  const int low_row = first_row + 16 * m_tile + lane.row;
  const int low = SourceRow(low_row, source.n, source.interleave_halves);
  const int high = SourceRow(low_row + 8, source.n, source.interleave_halves);
  const int column = unit * kInt4UnitColumns + 64 * k64 + 16 * k16 + 2 * lane.pair;
  return NibblePair(source, low, column) | NibblePair(source, high, column) << 4 |
         NibblePair(source, low, column + 8) << 8 | NibblePair(source, high, column + 8) << 12;
}

BEHEMOTH_HOST_DEVICE inline uint32_t PackedBf16Word(const Bf16Source& source, int64_t index) {
  // Words: [row tile][k32][m-tile 16][k16 2][lane 32][register 4].
  const int reg = static_cast<int>(index % 4);
  const FragmentLane lane = LaneOf(static_cast<int>(index / 4 % 32));
  const int k16 = static_cast<int>(index / 128 % 2);
  const int m_tile = static_cast<int>(index / 256 % 16);
  const int64_t unit = index / 4096;
  const int units = source.k / 32;
  const int packed_row =
      static_cast<int>(unit / units) * kUnitRows + 16 * m_tile + lane.row + 8 * (reg % 2);
  const int row = SourceRow(packed_row, source.n, source.interleave_halves);
  if (row < 0) return 0;
  const int column = static_cast<int>(unit % units) * 32 + 16 * k16 + 2 * lane.pair + 8 * (reg / 2);
  const bf16* pair = source.weight + int64_t{row} * source.k + column;
  return pair[0].bits | uint32_t{pair[1].bits} << 16;
}

}  // namespace behemoth::kernels
