#include "worker/device/cpu/vector_loops.h"

#include <algorithm>
#include <cstring>

// One body, compiled for each instruction set, chosen by the loader at start. Clang's clones miss
// the inlined helpers' vector types, and sanitizers run before resolvers may: one version there.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define BEHEMOTH_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define BEHEMOTH_CLONES
#endif
#define BEHEMOTH_INLINE __attribute__((always_inline)) inline

namespace behemoth::worker::cpu {
namespace {

constexpr int32_t kLanes = 16;
// Two independent sums hide the adder's latency; more would need more registers than AVX2 has.
constexpr int32_t kStep = 2 * kLanes;
constexpr int32_t kTokenTile = 4;

using Floats = float __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
using Words8 = uint32_t __attribute__((vector_size(32)));
using Ints8 = int32_t __attribute__((vector_size(32)));
using Floats8 = float __attribute__((vector_size(32)));

struct Sums {
  float lanes[kStep];
};

// A pairwise tree over 32 lanes.
BEHEMOTH_INLINE float TreeSum(Sums& sums) {
  for (int32_t width = kStep / 2; width > 0; width /= 2) {
    for (int32_t i = 0; i < width; ++i) sums.lanes[i] += sums.lanes[i + width];
  }
  return sums.lanes[0];
}

// Tokens dot products with one row of weights; the row is read once.
template <int32_t Tokens>
BEHEMOTH_INLINE void DotTile(const float* weight, int32_t cols, const float* x, int64_t x_stride,
                             float* result) {
  Floats low[Tokens] = {}, high[Tokens] = {};
  const int32_t whole = cols - cols % kStep;
  for (int32_t c = 0; c < whole; c += kStep) {
    const Floats w0 = *reinterpret_cast<const Floats*>(weight + c);
    const Floats w1 = *reinterpret_cast<const Floats*>(weight + c + kLanes);
    for (int32_t t = 0; t < Tokens; ++t) {
      const float* row = x + t * x_stride + c;
      low[t] += w0 * *reinterpret_cast<const Floats*>(row);
      high[t] += w1 * *reinterpret_cast<const Floats*>(row + kLanes);
    }
  }
  for (int32_t t = 0; t < Tokens; ++t) {
    Sums sums;
    std::memcpy(sums.lanes, &low[t], sizeof(Floats));
    std::memcpy(sums.lanes + kLanes, &high[t], sizeof(Floats));
    const float* row = x + t * x_stride;
    for (int32_t c = whole; c < cols; ++c) sums.lanes[c - whole] += weight[c] * row[c];
    result[t] = TreeSum(sums);
  }
}

// Nearest even, as integer arithmetic on the bits; the inputs are finite.
BEHEMOTH_INLINE void RoundToBfloat16(Floats8& value) {
  Words8 bits;
  std::memcpy(&bits, &value, sizeof(bits));
  bits = (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000u;
  std::memcpy(&value, &bits, sizeof(bits));
}

// Nearest even on float16's grid: 13 bits fewer, below 2^-14 steps of 2^-24, from 65520 on
// infinity.
BEHEMOTH_INLINE void RoundToHalf(Floats8& value) {
  Words8 bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const Words8 sign = bits & 0x80000000u;
  const Words8 size = bits ^ sign;
  Words8 rounded = (size + 0xfff + ((size >> 13) & 1)) & 0xffffe000u;
  rounded = rounded >= 0x47800000u ? Words8{} + 0x7f800000u : rounded;
  Floats8 small;
  std::memcpy(&small, &size, sizeof(small));
  small = (small + 0.5f) - 0.5f;  // floats in [1/2, 1) are 2^-24 apart
  Words8 small_bits;
  std::memcpy(&small_bits, &small, sizeof(small_bits));
  bits = sign | (size < 0x38800000u ? small_bits : rounded);
  std::memcpy(&value, &bits, sizeof(bits));
}

BEHEMOTH_INLINE void DequantizeWord(uint32_t word, float zero, float scale, ElementType product,
                                    float* out) {
  const Words8 shifts = {0, 4, 8, 12, 16, 20, 24, 28};
  const Words8 nibbles = ((Words8{} + word) >> shifts) & 15;
  Ints8 integers;
  std::memcpy(&integers, &nibbles, sizeof(integers));
  Floats8 values = (__builtin_convertvector(integers, Floats8) - zero) * scale;
  if (product == ElementType::kBfloat16) RoundToBfloat16(values);
  if (product == ElementType::kFloat16) RoundToHalf(values);
  std::memcpy(out, &values, sizeof(values));
}

}  // namespace

BEHEMOTH_CLONES void Dequantize(const Int4Row& row, float* out) {
  const int32_t words_per_group = row.group_size / 8;
  for (int32_t group = 0; group * row.group_size < row.cols; ++group) {
    const float zero = row.zeros == nullptr ? 8.0f : static_cast<float>(row.zeros[group]);
    const float scale = row.scales[group];
    const uint32_t* words = row.words + static_cast<int64_t>(group) * words_per_group;
    float* values = out + static_cast<int64_t>(group) * row.group_size;
    for (int32_t w = 0; w < words_per_group; ++w) {
      DequantizeWord(words[w], zero, scale, row.product, values + 8 * w);
    }
  }
}

BEHEMOTH_CLONES void WidenBfloat16(const uint16_t* in, int32_t count, float* out) {
  for (int32_t i = 0; i < count; ++i) {
    const uint32_t bits = static_cast<uint32_t>(in[i]) << 16;
    std::memcpy(out + i, &bits, sizeof(bits));
  }
}

BEHEMOTH_CLONES void Dots(const DotArgs& args) {
  float result[kTokenTile];
  for (int32_t t = 0; t < args.tokens; t += kTokenTile) {
    const float* x = args.x + t * args.x_stride;
    const int32_t tile = std::min(kTokenTile, args.tokens - t);
    if (tile == kTokenTile) {
      DotTile<kTokenTile>(args.weight, args.cols, x, args.x_stride, result);
    } else {
      for (int32_t i = 0; i < tile; ++i) {
        DotTile<1>(args.weight, args.cols, x + i * args.x_stride, 0, result + i);
      }
    }
    for (int32_t i = 0; i < tile; ++i) {
      float& y = args.y[(t + i) * args.y_stride];
      y = args.accumulate ? y + result[i] : result[i];
    }
  }
}

BEHEMOTH_CLONES float Dot(const float* a, const float* b, int32_t count) {
  float result;
  DotTile<1>(a, count, b, 0, &result);
  return result;
}

BEHEMOTH_CLONES float SumOfSquares(const float* in, int32_t count) {
  float result;
  DotTile<1>(in, count, in, 0, &result);
  return result;
}

BEHEMOTH_CLONES void AddScaled(float factor, const float* in, int32_t count, float* out) {
  for (int32_t i = 0; i < count; ++i) out[i] += factor * in[i];
}

}  // namespace behemoth::worker::cpu
