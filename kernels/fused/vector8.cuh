// Eight bf16 in one 16-byte word, the unit in which the row-wise kernels load, compute and store.
#pragma once

#include "kernels/fused/fused.h"
#include "kernels/paged_attention/device_math.cuh"

namespace behemoth::kernels {

struct Vector8 {
  float v[8];
};

__device__ inline float LowBf16(uint32_t word) { return __uint_as_float(word << 16); }
__device__ inline float HighBf16(uint32_t word) { return __uint_as_float(word & 0xffff0000u); }
__device__ inline float RoundBf16(float x) { return __bfloat162float(__float2bfloat16_rn(x)); }

__device__ inline Vector8 Unpack(uint4 w) {
  return {{LowBf16(w.x), HighBf16(w.x), LowBf16(w.y), HighBf16(w.y), LowBf16(w.z), HighBf16(w.z),
           LowBf16(w.w), HighBf16(w.w)}};
}
__device__ inline uint4 Pack(const Vector8& x) {
  return make_uint4(PackBf16(x.v[0], x.v[1]), PackBf16(x.v[2], x.v[3]), PackBf16(x.v[4], x.v[5]),
                    PackBf16(x.v[6], x.v[7]));
}

// Piece `piece` (columns 8 piece ..) of row `row`, to both layouts.
__device__ inline void Store(const RowOutput& out, int row, int piece, int pieces, uint4 value) {
  if (out.plain != nullptr) {
    reinterpret_cast<uint4*>(out.plain)[static_cast<size_t>(row) * pieces + piece] = value;
  }
  if (out.packed != nullptr) {
    reinterpret_cast<uint4*>(out.packed)[static_cast<size_t>(piece) * out.packed_rows + row] =
        value;
  }
}

}  // namespace behemoth::kernels
