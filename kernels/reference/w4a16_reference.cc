#include "kernels/reference/w4a16_reference.h"

#include <cmath>

namespace behemoth::kernels {

std::vector<float> DequantiseReference(const Int4Source& source) {
  std::vector<float> weight(static_cast<size_t>(source.n) * source.k);
  const int groups = source.k / source.group_columns;
  for (int row = 0; row < source.n; ++row) {
    for (int column = 0; column < source.k; ++column) {
      const uint32_t word = source.weight[int64_t{row} * (source.k / 8) + column / 8];
      const int64_t group = int64_t{row} * groups + column / source.group_columns;
      const int zero = source.zero_point == nullptr ? 8 : source.zero_point[group];
      const int q = static_cast<int>(word >> (4 * (column % 8)) & 15u);
      weight[int64_t{row} * source.k + column] =
          ToFloat(ToBf16(static_cast<float>(q - zero) * ToFloat(source.scale[group])));
    }
  }
  return weight;
}

ReferenceProduct MultiplyReference(const std::vector<float>& act, const std::vector<float>& weight,
                                   int m, int n, int k) {
  ReferenceProduct product;
  for (int row = 0; row < m; ++row) {
    for (int column = 0; column < n; ++column) {
      double sum = 0, magnitude = 0;
      for (int i = 0; i < k; ++i) {
        const double term = double{act[int64_t{row} * k + i]} * weight[int64_t{column} * k + i];
        sum += term;
        magnitude += std::abs(term);
      }
      product.sum.push_back(sum);
      product.magnitude.push_back(magnitude);
    }
  }
  return product;
}

}  // namespace behemoth::kernels
