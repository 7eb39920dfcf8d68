// The CPU backend's inner loops, over raw pointers. Each result is one fixed sequence of float
// operations, the same for every batch size, thread count and vector width: a row's bits depend on
// the row. (Multiply and add stay apart: the build contracts nothing, so AVX2 and AVX-512 agree.)
#pragma once

#include <cstdint>

#include "worker/checkpoint/linear_weights.h"

namespace behemoth::worker::cpu {

// One row of an int4 matrix: words [cols / 8], scales and zeros [cols / group_size].
struct Int4Row {
  const uint32_t* words;
  const float* scales;
  const uint8_t* zeros;  // null: all 8
  int32_t cols;
  int32_t group_size;
  ElementType product;
};

// out[cols] = the row's weights, rounded as the format's own library rounds them.
void Dequantize(const Int4Row& row, float* out);
// out[count] from bf16.
void WidenBfloat16(const uint16_t* in, int32_t count, float* out);

// y[t * y_stride] (+)= dot(x[t * x_stride ...], weight), t < tokens.
struct DotArgs {
  const float* weight;  // [cols]
  int32_t cols;
  const float* x;
  int64_t x_stride;
  int32_t tokens;
  float* y;
  int64_t y_stride;
  bool accumulate;
};
void Dots(const DotArgs& args);

// dot(a, b) in the order of Dots.
float Dot(const float* a, const float* b, int32_t count);
// out += factor * in
void AddScaled(float factor, const float* in, int32_t count, float* out);
// sum of squares in the order of Dots
float SumOfSquares(const float* in, int32_t count);

}  // namespace behemoth::worker::cpu
