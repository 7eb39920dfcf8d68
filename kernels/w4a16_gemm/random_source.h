// Seeded random int4 weights in the checkpoint's own layout, made where they are needed: 60 GB in
// milliseconds on the device instead of minutes on a host. For capacity and speed runs without the
// files; RepackInt4() packs them like any others.
//
// The generator is SplitMix64 (Steele, Lea, Flood 2014) entered at any output: output i of a seed
// is Mix(seed + (i + 1) * golden ratio). The words of `weight` take the low halves of the first
// outputs, the scales the outputs behind them. The CPU backend reads the same numbers one after the
// other (worker/checkpoint/random_weights.cc), so both backends serve one model.
#pragma once

#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/kernel_error.h"
#include "kernels/common/launch_context.h"

namespace behemoth::kernels {

struct RandomInt4 {
  uint64_t seed = 0;
  uint32_t* weight = nullptr;  // [n, k / 8], nibbles uniform on 0..15
  bf16* scale = nullptr;       // [n, k / group_columns], 0.75 .. 1.25 of RandomScaleOf(k)
  int n = 0;
  int k = 0;              // % group_columns == 0
  int group_columns = 0;  // % 8 == 0
};

BEHEMOTH_HOST_DEVICE constexpr uint64_t SplitMix64(uint64_t seed, uint64_t index) {
  uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// A nibble minus 8 is uniform on -8..7, standard deviation 4.6: with this scale a row of k weights
// keeps the variance of its input.
float RandomScaleOf(int k);

// The scale that one output of the generator gives. Exact but for the product and its rounding, so
// host and device agree to the bit.
BEHEMOTH_HOST_DEVICE inline bf16 RandomScale(float scale, uint64_t output) {
  const float spread = 0.75f + 0.5f * static_cast<float>(output >> 40) * 0x1p-24f;
  return ToBf16(scale * spread);
}

// Fills host memory.
KernelError FillRandomInt4(const RandomInt4& target);

// The same bits in device memory; the work is enqueued. CUDA builds only.
KernelError LaunchRandomInt4(const RandomInt4& target, const LaunchContext& context);

}  // namespace behemoth::kernels
