// Conversions of packed pairs that attention and fused kernels share.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace behemoth::kernels {

// Two floats to one word of two bf16, `low` in the lower half.
__device__ inline uint32_t PackBf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

__device__ inline float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Two e4m3 bytes, already in bits 8..15 and 24..31, to two bf16. The exponent and mantissa bits
// move to where bf16 keeps its own, which is the value times 2^-120 (bias 7 instead of 127); the
// multiply restores it exactly, subnormals included. The NaN code reads as 480.
__device__ inline uint32_t E4m3PairToBf16(uint32_t bytes) {
  const uint32_t bits = ((bytes >> 4) & 0x07f007f0u) | (bytes & 0x80008000u);
  const uint32_t two_to_120 = 0x7b807b80u;
  const __nv_bfloat162 value = __hmul2(*reinterpret_cast<const __nv_bfloat162*>(&bits),
                                       *reinterpret_cast<const __nv_bfloat162*>(&two_to_120));
  return *reinterpret_cast<const uint32_t*>(&value);
}
// Bytes i and j of `word` as such a pair.
template <int i, int j>
__device__ inline uint32_t E4m3BytesToBf16(uint32_t word) {
  constexpr uint32_t kSelector = 4u | (i << 4) | (4u << 8) | (j << 12);  // 4 = a byte of zero
  return E4m3PairToBf16(__byte_perm(word, 0, kSelector));
}

}  // namespace behemoth::kernels
