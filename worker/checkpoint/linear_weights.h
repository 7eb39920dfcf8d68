// Weights as read from a checkpoint, in no backend's order: what the readers produce and each
// backend packs for itself. Plain values, moved from reader to backend one layer at a time. What a
// file holds in this layout already may still be in the file: stored.h.
#pragma once

#include <absl/status/status.h>

#include <cstdint>
#include <optional>
#include <variant>
#include <vector>

#include "worker/checkpoint/element.h"
#include "worker/checkpoint/stored.h"

namespace behemoth::worker {

// [rows, cols] row-major, as stored: little endian, of `type`. A gain is one row.
struct DenseMatrix {
  ElementType type = ElementType::kBfloat16;
  int32_t rows = 0;
  int32_t cols = 0;
  Stored<uint8_t> bytes;

  size_t size() const { return bytes.size() / BytesPerElement(type); }  // elements
  // In memory only, as is what follows.
  float operator[](size_t index) const {
    return ElementAt(type, bytes.data(), static_cast<int64_t>(index));
  }
};

std::vector<float> FloatsOf(const DenseMatrix& matrix);
// The same matrix as bf16, rounded; a matrix of bf16 is shared, not copied.
DenseMatrix AsBfloat16(const DenseMatrix& matrix);
// A matrix of these elements.
DenseMatrix MatrixOf(int32_t rows, int32_t cols, std::vector<uint16_t> bfloat16s);
DenseMatrix MatrixOf(int32_t rows, int32_t cols, std::vector<float> floats);

// weight[o, permutation[c]] = (nibble[o, c] - zero[o, c / group_size]) * scale[o, c / group_size].
// Groups are always consecutive columns here: a checkpoint's g_idx becomes `permutation`, and the
// activation is gathered by it.
struct Int4Weights {
  int32_t group_size = 0;            // divides the inputs
  Stored<uint32_t> nibbles;          // [out, in / 8]; column c is bits 4 (c % 8) of word c / 8
  DenseMatrix scales;                // [out, in / group_size], finite, in memory
  std::vector<uint8_t> zeros;        // [out, in / group_size], 0..16; empty = all 8 (symmetric)
  std::vector<int32_t> permutation;  // [in]; empty = identity
  // The type in which the format's own library forms the product (nibble - zero) * scale: it is
  // rounded to this type once. kFloat32 = not rounded.
  ElementType product = ElementType::kBfloat16;
  // Random weights that nobody has made yet: nibbles and scales are empty, and Load() or the device
  // makes them (kernels/w4a16_gemm/random_source.h).
  std::optional<uint64_t> seed;
};

// One projection: y[out] = weight[out, in] x[in]. No bias.
struct LinearWeights {
  int32_t out = 0;
  int32_t in = 0;
  std::variant<DenseMatrix, Int4Weights> values;
};

// Reads into memory what is still in its file, makes what is still a seed.
absl::Status Load(LinearWeights& weights);

}  // namespace behemoth::worker
