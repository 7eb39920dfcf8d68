// bf16: the 16 upper bits of an IEEE float, as plain storage that host and device code share.
// The host part of kernels/ builds without CUDA, so this is our own type and not __nv_bfloat16; the
// two have the same size, alignment and bits, and device code reinterprets words of pairs.
#pragma once

#include <bit>
#include <cstdint>

#ifdef __CUDACC__
#define BEHEMOTH_HOST_DEVICE __host__ __device__
#else
#define BEHEMOTH_HOST_DEVICE
#endif

namespace behemoth::kernels {

struct bf16 {
  uint16_t bits;
};
static_assert(sizeof(bf16) == 2 && alignof(bf16) == 2);

BEHEMOTH_HOST_DEVICE inline float ToFloat(bf16 value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}

// Round to nearest even, as the hardware conversion does; every NaN becomes 0x7fff.
BEHEMOTH_HOST_DEVICE inline bf16 ToBf16(float value) {
  const uint32_t word = std::bit_cast<uint32_t>(value);
  if ((word & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
  return {static_cast<uint16_t>((word + 0x7fffu + ((word >> 16) & 1u)) >> 16)};
}

}  // namespace behemoth::kernels
