// One unit of weights times one slice of activations, on a warp's 16 rows: the inner loop of the
// decode GEMM, once with mma.sync and once with wgmma. Both add the same products in the same order
// (k ascending, 16 at a time, fp32), and were seen to agree bit for bit.
//
// Issue slots per 256 int4 weights of a warp: 4 lop3 + 3 shifts + 4 FMAs = 11 (with zero points
// 15), plus padded_rows / 8 MMAs. At an H100's 26 weights per clock and SM that is 1.1 of 4 slots.
#pragma once

#include <cuda_runtime.h>

#include "kernels/common/ptx.cuh"
#include "kernels/w4a16_gemm/packed_layout.h"

namespace behemoth::kernels {

// a * b + c on pairs of bf16, rounded once; the one bf16 arithmetic that sm_80 has too.
__device__ inline uint32_t FmaPair(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}

// Scale and offset of a lane's two rows (row, row + 8), each doubled into a pair.
struct RowScales {
  uint32_t scale[2];
  uint32_t offset[2];  // -8 * scale; with zero points -(128 + zero)
};

template <WeightKind kKind>
__device__ inline RowScales LoadScales(uint32_t scales, int m_tile, int lane) {
  constexpr int kBytes = BlobGroupBytes(kKind) / 32;
  constexpr uint32_t kMinusZero = 0x80008000u;
  constexpr uint32_t kMinusEight = 0x80808080u;  // -2^-126: from scale * 2^129 to scale * -8
  const uint32_t entry = scales + (8 * m_tile + lane / 4) * kBytes;
  const uint32_t pair = ptx::LoadShared4(entry);
  RowScales rows;
  rows.scale[0] = __byte_perm(pair, 0, 0x1010);
  rows.scale[1] = __byte_perm(pair, 0, 0x3232);
  if constexpr (HasZeroPoints(kKind)) {
    const uint32_t offsets = ptx::LoadShared4(entry + 4);
    rows.offset[0] = __byte_perm(offsets, 0, 0x1010);
    rows.offset[1] = __byte_perm(offsets, 0, 0x3232);
  } else {
    rows.offset[0] = FmaPair(rows.scale[0], kMinusEight, kMinusZero);
    rows.offset[1] = FmaPair(rows.scale[1], kMinusEight, kMinusZero);
  }
  return rows;
}

// Eight nibbles -> an A fragment, (q - zero) * scale rounded once, as the reference does it.
// Symmetric: the low 8 bits of a bf16 whose upper bits are zero are an integer times 2^-133, also
// across the border between subnormal and normal numbers. So a nibble at bits 4..7 is q * 2^-129,
// and one FMA with scale * 2^129 and -8 * scale (exact both) is exact but for its one rounding.
// With zero points -zero * scale is not exact: 0x4300 | q is 128 + q; minus the offset is exact;
// the product rounds.
template <WeightKind kKind>
__device__ inline void Dequantise(uint32_t word, const RowScales& rows, uint32_t (&a)[4]) {
  if constexpr (HasZeroPoints(kKind)) {
    constexpr uint32_t kOne = 0x3f803f80u, kMinusZero = 0x80008000u;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      uint32_t biased;
      asm("lop3.b32 %0, %1, 0x000f000f, 0x43004300, 0xea;" : "=r"(biased) : "r"(word >> (4 * i)));
      a[i] = FmaPair(FmaPair(biased, kOne, rows.offset[i % 2]), rows.scale[i % 2], kMinusZero);
    }
  } else {
    const uint32_t shifted[4] = {word << 4, word, word >> 4, word >> 8};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      a[i] = FmaPair(shifted[i] & 0x00f000f0u, rows.scale[i % 2], rows.offset[i % 2]);
    }
  }
}

// The scales of one m-tile's half unit: one pair of rows per group that the half touches.
template <WeightKind kKind>
struct HalfScales {
  static constexpr int kGroups = UnitGroups(kKind) <= 2 ? 1 : UnitGroups(kKind) / 2;
  RowScales group[kGroups];

  __device__ void Load(uint32_t unit, int half, int m_tile, int lane) {
    if constexpr (kKind != WeightKind::kBf16) {
      constexpr int kNibbleBytes = kBlobRows * kInt4UnitColumns / 2;
      const uint32_t scales = unit + m_tile / 4 * BlobBytes(kKind) + kNibbleBytes;
      const int first = UnitGroups(kKind) == 1 ? 0 : half * kGroups;
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
        group[g] =
            LoadScales<kKind>(scales + (first + g) * BlobGroupBytes(kKind), m_tile % 4, lane);
      }
    }
  }
};

// Fragments of half `half` of a unit (64 columns of int4, 16 of bf16) of one m-tile (16 rows; there
// are 16 in a unit).
template <WeightKind kKind>
struct HalfUnit {
  static constexpr int kFragments = kKind == WeightKind::kBf16 ? 1 : 4;
  uint32_t a[kFragments][4];

  // Keeps the dequantisation in front of the wgmma fence: registers written behind it would make
  // the compiler insert fences of its own (C7519).
  __device__ void Pin() {
#pragma unroll
    for (int i = 0; i < kFragments; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) asm volatile("" : "+r"(a[i][j])::"memory");
    }
  }

  __device__ void Load(uint32_t unit, int half, int m_tile, int lane,
                       const HalfScales<kKind>& scales) {
    if constexpr (kKind == WeightKind::kBf16) {
      const uint4 v = ptx::LoadShared16(unit + ((m_tile * 2 + half) * 32 + lane) * 16);
      a[0][0] = v.x, a[0][1] = v.y, a[0][2] = v.z, a[0][3] = v.w;
    } else {
      const uint32_t blob = unit + m_tile / 4 * BlobBytes(kKind);
      const uint4 v = ptx::LoadShared16(blob + ((m_tile % 4 * 2 + half) * 32 + lane) * 16);
      constexpr int kLast = HalfScales<kKind>::kGroups - 1;
      Dequantise<kKind>(v.x, scales.group[0], a[0]);
      Dequantise<kKind>(v.y, scales.group[0], a[1]);
      Dequantise<kKind>(v.z, scales.group[kLast], a[2]);
      Dequantise<kKind>(v.w, scales.group[kLast], a[3]);
    }
  }
};

// The m-tile of a warp's `i`-th accumulator: warps 4 g .. 4 g + 3 share whole blobs, as the four
// warps of a wgmma must.
template <int kTiles>
__device__ inline int WarpTile(int warp, int i) {
  return (warp / 4 * kTiles + i) * 4 + warp % 4;
}

// acc[i][j] += rows of m-tile WarpTile(warp, i) x tokens 8 j .. 8 j + 7.
template <WeightKind kKind, int kRows, int kTiles>
__device__ inline void MultiplyMma(float (&acc)[kTiles][kRows / 8][4], uint32_t unit, uint32_t act,
                                   int warp, int lane) {
  constexpr int kFragments = HalfUnit<kKind>::kFragments;
  HalfScales<kKind> scales[kTiles];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    HalfUnit<kKind> weights[kTiles];
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      const int m_tile = WarpTile<kTiles>(warp, i);
      // Groups of 128 columns: both halves have the same scales.
      if (half == 0 || UnitGroups(kKind) > 1) scales[i].Load(unit, half, m_tile, lane);
      weights[i].Load(unit, half, m_tile, lane, scales[i]);
    }
    const uint32_t slice = act + half * kFragments * 2 * kRows * 16;
    if constexpr (kRows == 8 && kFragments > 1) {
#pragma unroll
      for (int j = 0; j < kFragments; j += 2) {
        uint32_t b[4];  // (k16 j: k8 0, k8 1), (k16 j + 1: k8 0, k8 1)
        ptx::LoadMatrix4(b, slice + j * 256 + lane * 16);
#pragma unroll
        for (int i = 0; i < kTiles; ++i) ptx::MmaBf16(acc[i][0], weights[i].a[j], b[0], b[1]);
#pragma unroll
        for (int i = 0; i < kTiles; ++i) ptx::MmaBf16(acc[i][0], weights[i].a[j + 1], b[2], b[3]);
      }
    } else if constexpr (kRows == 8) {
      uint32_t b[4];  // two of four 8x8 matrices are this k16's; the others repeat them
      ptx::LoadMatrix4(b, slice + lane % 16 * 16);
#pragma unroll
      for (int i = 0; i < kTiles; ++i) ptx::MmaBf16(acc[i][0], weights[i].a[0], b[0], b[1]);
    } else {
      // Matrices: (k8 0, tokens 0), (k8 1, tokens 0), (k8 0, tokens 8), (k8 1, tokens 8).
      const uint32_t row = slice + lane / 8 % 2 * kRows * 16 + lane / 16 * 128 + lane % 8 * 16;
#pragma unroll
      for (int j = 0; j < kFragments; ++j) {
#pragma unroll
        for (int t = 0; t < kRows / 16; ++t) {
          uint32_t b[4];
          ptx::LoadMatrix4(b, row + j * 2 * kRows * 16 + t * 256);
#pragma unroll
          for (int i = 0; i < kTiles; ++i) {
            ptx::MmaBf16(acc[i][2 * t], weights[i].a[j], b[0], b[1]);
            ptx::MmaBf16(acc[i][2 * t + 1], weights[i].a[j], b[2], b[3]);
          }
        }
      }
    }
  }
}

}  // namespace behemoth::kernels
