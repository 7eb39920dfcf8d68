// Numbers that the truncating stages decide by, the same bits on host and device: integers, fused
// multiply-adds and single roundings only, as in mass.h. What each stage keeps:
// worker/sampling/README.md.
#pragma once

#include "kernels/sampling/mass.h"

namespace behemoth::kernels {

// One rounding of its own: no compiler may fuse the product into a later sum.
BEHEMOTH_HOST_DEVICE inline float RoundedProduct(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

BEHEMOTH_HOST_DEVICE inline int32_t RoundToInt(float x) {
#ifdef __CUDA_ARCH__
  return __float2int_rn(x);
#else
  return static_cast<int32_t>(std::nearbyint(x));
#endif
}

// A surprisal of one bit.
inline constexpr int32_t kBit = 1 << 15;

// 2^15 log2(value), within 1; value >= 1.
BEHEMOTH_HOST_DEVICE inline int32_t FixedLog2(uint64_t value) {
#ifdef __CUDA_ARCH__
  const int zeros = __clzll(static_cast<long long>(value));
#else
  const int zeros = std::countl_zero(value);
#endif
  int exponent = 63 - zeros;
  float f = static_cast<float>(static_cast<uint32_t>((value << zeros) >> 40)) * 0x1p-23f;  // [1, 2)
  if (f > 1.41421356f) {
    f *= 0.5f;
    ++exponent;
  }
  const float x = f - 1.0f, square = RoundedProduct(x, x);
  float p = fmaf(7.0376836292e-2f, x, -1.1514610310e-1f);  // minimax of Cephes' logf
  p = fmaf(p, x, 1.1676998740e-1f);
  p = fmaf(p, x, -1.2420140846e-1f);
  p = fmaf(p, x, 1.4249322787e-1f);
  p = fmaf(p, x, -1.6668057665e-1f);
  p = fmaf(p, x, 2.0000714765e-1f);
  p = fmaf(p, x, -2.4999993993e-1f);
  p = fmaf(p, x, 3.3333331174e-1f);
  const float cube = RoundedProduct(RoundedProduct(p, x), square);
  const float log = x + fmaf(-0.5f, square, cube);
  return exponent * kBit + RoundToInt(RoundedProduct(log, 47274.2311f));  // 2^15 / ln 2
}

// 2^15 log2(2^31 / mass), mass >= 1: how much less likely than a unit mass.
BEHEMOTH_HOST_DEVICE inline uint32_t SurprisalOf(uint32_t mass) {
  const int32_t surprisal = 31 * kBit - FixedLog2(mass);
  return surprisal > 0 ? static_cast<uint32_t>(surprisal) : 0u;
}

// The mass of a surprisal; at 0 and below it no mass is too large.
BEHEMOTH_HOST_DEVICE inline uint32_t MassAt(int32_t surprisal) {
  if (surprisal <= 0) return kUnitMass;
  return MassOf(RoundedProduct(static_cast<float>(surprisal), -2.11531732e-5f));  // ln 2 / 2^15
}
inline constexpr int32_t kMaxSurprisal = 32 * kBit;  // MassAt() of it is at most 1

// The masses whose surprisal is within `distance` of `center`.
struct MassRange {
  uint32_t least, most;
};
BEHEMOTH_HOST_DEVICE inline MassRange TypicalRange(int32_t center, int32_t distance) {
  const uint32_t least = MassAt(center + distance);
  return {least > 1 ? least : 1, MassAt(center - distance)};
}

// The logit after temperature and quadratic smoothing, 0 = the largest before them. `y` =
// (logit - largest) / temperature. A curve of 1 or less is the plain parabola.
BEHEMOTH_HOST_DEVICE inline float Smooth(float y, float factor, float curve) {
  if (factor <= 0.0f || !(y > -INFINITY)) return y;
  const float c = curve > 1.0f ? curve : 1.0f;
  const float inner = fmaf(RoundedProduct(c - 1.0f, 0.5f), y, RoundedProduct(c - 3.0f, 0.5f));
  const float smoothed = RoundedProduct(RoundedProduct(factor, RoundedProduct(y, y)), inner);
  return smoothed < 1e30f ? smoothed : 1e30f;  // finite, whatever the request's factor
}

// Of masses at temperature 1 whose largest is 2^31: `total`, the sum of mass * SurprisalOf(mass),
// and how many tokens are left.
struct Entropy {
  uint64_t total;
  uint64_t weighted;
  uint32_t count;
};
struct TemperatureRange {
  float low, high, exponent;
};
BEHEMOTH_HOST_DEVICE inline float DynamicTemperatureOf(const Entropy& e, TemperatureRange range,
                                                       float least) {
  const int32_t entropy =
      FixedLog2(e.total) - 31 * kBit + static_cast<int32_t>(e.weighted / e.total);
  float power = 0.0f;
  if (e.count > 1 && entropy > 0) {
    const int32_t log_ratio = FixedLog2(static_cast<uint64_t>(entropy)) -
                              FixedLog2(static_cast<uint64_t>(FixedLog2(e.count)));
    const float x =
        RoundedProduct(static_cast<float>(log_ratio < 0 ? log_ratio : 0), 2.11531732e-5f);
    power = static_cast<float>(MassOf(RoundedProduct(x, range.exponent))) * 0x1p-31f;
  }
  const float temperature = fmaf(range.high - range.low, power, range.low);
  return temperature > least ? temperature : least;
}

// A logit's distance from the largest in 2^-8, at most 2^22: squares of a vocabulary's sum up in 64
// bits.
BEHEMOTH_HOST_DEVICE inline uint32_t FixedDistance(float distance) {
  const float scaled = distance * 256.0f;
  return static_cast<uint32_t>(RoundToInt(scaled < 4194304.0f ? scaled : 4194304.0f));
}
// `n` standard deviations (of the population) of `count` >= 1 distances.
BEHEMOTH_HOST_DEVICE inline float Deviations(float n, uint32_t count, uint64_t sum,
                                             uint64_t squares) {
  const double mean = static_cast<double>(sum) / count;
  const double variance = fma(-mean, mean, static_cast<double>(squares) / count);
  return static_cast<float>(n * sqrt(variance > 0.0 ? variance : 0.0) * 0x1p-8);
}

// The smallest mass that min_p keeps.
BEHEMOTH_HOST_DEVICE inline uint32_t MinPMass(float min_p, uint32_t largest) {
  return static_cast<uint32_t>(static_cast<double>(min_p) * static_cast<double>(largest));
}

// XTC's coin: another word of the draw's counter.
BEHEMOTH_HOST_DEVICE inline bool XtcHappens(uint64_t seed, int32_t sequence, int32_t position,
                                            float probability) {
  const PhiloxBlock r =
      Philox4x32({{static_cast<uint32_t>(position), static_cast<uint32_t>(sequence), 1, 0}}, seed);
  const uint64_t bits = r.word[0] | uint64_t{r.word[1]} << 32;
  return static_cast<double>(bits >> 11) * 0x1p-53 < static_cast<double>(probability);
}
inline constexpr float kMaxXtcThreshold = 0.5f;  // above it two tokens cannot both be likely

// What DRY takes from the logit of a token that would lengthen a repeat of allowed_length + excess
// tokens. Finite: no repeat bans every token.
inline constexpr int32_t kMaxDryExcess = 255;
BEHEMOTH_HOST_DEVICE inline float DryPenalty(float multiplier, float base, int32_t excess) {
  float power = 1.0f, square = base;
  for (int32_t rest = excess; rest > 0; rest /= 2) {
    if (rest % 2 != 0) power = RoundedProduct(power, square);
    square = RoundedProduct(square, square);
  }
  const float penalty = RoundedProduct(multiplier, power);
  return penalty < 1e30f ? penalty : 1e30f;
}

}  // namespace behemoth::kernels
