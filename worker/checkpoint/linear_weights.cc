#include "worker/checkpoint/linear_weights.h"

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

absl::Status Load(LinearWeights& weights) {
  if (auto* dense = std::get_if<DenseMatrix>(&weights.values)) return dense->bytes.Load();
  return std::get<Int4Weights>(weights.values).nibbles.Load();
}

}  // namespace behemoth::worker
