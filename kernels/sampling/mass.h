// The sampler's arithmetic, the same bits on host and device: counter-based random words and
// probabilities as integers. Only fused multiply-adds, exact scalings and integer operations, so no
// compiler may round differently.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/common/bf16.h"

namespace behemoth::kernels {

// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
struct PhiloxBlock {
  uint32_t word[4];
};
BEHEMOTH_HOST_DEVICE inline PhiloxBlock Philox4x32(PhiloxBlock counter, uint64_t key) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  uint32_t* c = counter.word;
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xd2511f53u} * c[0], b = uint64_t{0xcd9e8d57u} * c[2];
    const uint32_t c0 = static_cast<uint32_t>(b >> 32) ^ c[1] ^ k0;
    const uint32_t c2 = static_cast<uint32_t>(a >> 32) ^ c[3] ^ k1;
    c[1] = static_cast<uint32_t>(b);
    c[3] = static_cast<uint32_t>(a);
    c[0] = c0;
    c[2] = c2;
    k0 += 0x9e3779b9u;
    k1 += 0xbb67ae85u;
  }
  return counter;
}

// The draw of one token: counter = (position, sequence, 0, 0), key = seed.
BEHEMOTH_HOST_DEVICE inline uint64_t DrawBits(uint64_t seed, int32_t sequence, int32_t position) {
  const PhiloxBlock r =
      Philox4x32({{static_cast<uint32_t>(position), static_cast<uint32_t>(sequence), 0, 0}}, seed);
  return r.word[0] | uint64_t{r.word[1]} << 32;
}

// floor(bits / 2^64 * total): uniform in [0, total) up to 2^-64 * total.
BEHEMOTH_HOST_DEVICE inline uint64_t ScaleToTotal(uint64_t bits, uint64_t total) {
  const uint64_t a = bits >> 32, b = bits & 0xffffffffu, c = total >> 32, d = total & 0xffffffffu;
  const uint64_t middle = a * d + ((b * d) >> 32);
  return a * c + (middle >> 32) + (((middle & 0xffffffffu) + b * c) >> 32);
}

inline constexpr uint32_t kUnitMass = 1u << 31;

// round(2^31 * exp(x)) for x <= 0, within 2^-22 relative of it. Sums of masses are exact in any
// order: that is what makes a draw independent of how the sum is split.
BEHEMOTH_HOST_DEVICE inline uint32_t MassOf(float x) {
  if (!(x > -22.5f)) return 0;       // 2^31 exp(-22.5) < 1/2
  const float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float n = fmaf(x, 1.44269504f, kRound) - kRound;
  float r = fmaf(n, -0.693359375f, x);
  r = fmaf(n, 2.12194440e-4f, r);
  float p = fmaf(r, 1.98756915e-4f, 1.39819995e-3f);  // minimax of Cephes' expf
  p = fmaf(p, r, 8.33345193e-3f);
  p = fmaf(p, r, 4.16657962e-2f);
  p = fmaf(p, r, 1.66666654e-1f);
  p = fmaf(p, r, 5.00000012e-1f);
  p = fmaf(fmaf(p, r, 1.0f), r, 1.0f);
  const uint32_t bits = static_cast<uint32_t>(static_cast<int32_t>(n) + 31 + 127) << 23;
#ifdef __CUDA_ARCH__
  const uint32_t mass = __float2uint_rn(p * __uint_as_float(bits));
#else
  const uint32_t mass = static_cast<uint32_t>(std::nearbyint(p * std::bit_cast<float>(bits)));
#endif
  return mass < kUnitMass ? mass : kUnitMass;
}

// The smallest mass that a nucleus of `top_p` must hold. Both factors and the product are doubles.
BEHEMOTH_HOST_DEVICE inline uint64_t NucleusMass(float top_p, uint64_t total) {
  const double wanted = ceil(static_cast<double>(top_p) * static_cast<double>(total));
  const uint64_t mass = static_cast<uint64_t>(wanted);
  return mass < 1 ? 1 : mass > total ? total : mass;
}

}  // namespace behemoth::kernels
