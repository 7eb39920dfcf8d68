#include "worker/checkpoint/linear_weights.h"

#include "kernels/w4a16_gemm/random_source.h"
#include "proto/support/check.h"

#include <utility>

namespace behemoth::worker {

std::vector<float> FloatsOf(const DenseMatrix& matrix) {
  std::vector<float> floats(matrix.size());
  for (size_t i = 0; i < floats.size(); ++i) floats[i] = matrix[i];
  return floats;
}

DenseMatrix AsBfloat16(const DenseMatrix& matrix) {
  if (matrix.type == ElementType::kBfloat16) return matrix;
  std::vector<uint16_t> rounded(matrix.size());
  for (size_t i = 0; i < rounded.size(); ++i) rounded[i] = Bfloat16FromFloat(matrix[i]);
  return MatrixOf(matrix.rows, matrix.cols, std::move(rounded));
}

DenseMatrix MatrixOf(int32_t rows, int32_t cols, std::vector<uint16_t> bfloat16s) {
  return {ElementType::kBfloat16, rows, cols,
          Stored<uint8_t>(Stored<uint16_t>(std::move(bfloat16s)).bytes())};
}

DenseMatrix MatrixOf(int32_t rows, int32_t cols, std::vector<float> floats) {
  return {ElementType::kFloat32, rows, cols,
          Stored<uint8_t>(Stored<float>(std::move(floats)).bytes())};
}

namespace {

void MakeRandom(int32_t out, int32_t in, Int4Weights& int4) {
  const int32_t groups = in / int4.group_size;
  std::vector<uint32_t> nibbles(static_cast<size_t>(out) * static_cast<size_t>(in / 8));
  std::vector<uint16_t> scales(static_cast<size_t>(out) * static_cast<size_t>(groups));
  static_assert(sizeof(kernels::bf16) == sizeof(uint16_t));
  const kernels::KernelError made =
      kernels::FillRandomInt4({.seed = *int4.seed,
                               .weight = nibbles.data(),
                               .scale = reinterpret_cast<kernels::bf16*>(scales.data()),
                               .n = out,
                               .k = in,
                               .group_columns = int4.group_size});
  BEHEMOTH_CHECK(made.ok(), made.operation);
  int4.nibbles = std::move(nibbles);
  int4.scales = MatrixOf(out, groups, std::move(scales));
  int4.seed.reset();
}

}  // namespace

absl::Status Load(LinearWeights& weights) {
  if (auto* dense = std::get_if<DenseMatrix>(&weights.values)) return dense->bytes.Load();
  auto& int4 = std::get<Int4Weights>(weights.values);
  if (int4.seed) MakeRandom(weights.out, weights.in, int4);
  return int4.nibbles.Load();
}

}  // namespace behemoth::worker
