// Weights as read from a checkpoint, in no backend's order: what the readers produce and each
// backend packs for itself. Plain values, moved from reader to backend one layer at a time.
#pragma once

#include <cstdint>
#include <variant>
#include <vector>

namespace behemoth::worker {

enum class ElementType { kBfloat16, kFloat16, kFloat32 };

constexpr int32_t BytesPerElement(ElementType type) {
  return type == ElementType::kFloat32 ? 4 : 2;
}

// [rows, cols] row-major, as stored: little endian, of `type`. A gain is one row.
struct DenseMatrix {
  ElementType type = ElementType::kBfloat16;
  int32_t rows = 0;
  int32_t cols = 0;
  std::vector<uint8_t> bytes;
};

// weight[o, permutation[c]] = (nibble[o, c] - zero[o, c / group_size]) * scale[o, c / group_size].
// Groups are always consecutive columns here: a checkpoint's g_idx becomes `permutation`, and the
// activation is gathered by it.
struct Int4Weights {
  int32_t group_size = 0;            // divides the inputs
  std::vector<uint32_t> nibbles;     // [out, in / 8]; column c is bits 4 (c % 8) of word c / 8
  std::vector<float> scales;         // [out, in / group_size], exact copies of bf16, f16 or f32
  std::vector<uint8_t> zeros;        // [out, in / group_size], 0..16; empty = all 8 (symmetric)
  std::vector<int32_t> permutation;  // [in]; empty = identity
  // The type in which the format's own library forms the product (nibble - zero) * scale: it is
  // rounded to this type once. kFloat32 = not rounded.
  ElementType product = ElementType::kBfloat16;
};

// One projection: y[out] = weight[out, in] x[in]. No bias.
struct LinearWeights {
  int32_t out = 0;
  int32_t in = 0;
  std::variant<DenseMatrix, Int4Weights> values;
};

}  // namespace behemoth::worker
