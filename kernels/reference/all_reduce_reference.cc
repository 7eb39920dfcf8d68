#include "kernels/all_reduce/all_reduce.h"

namespace behemoth::kernels::reference {

void RankSum(const RankSumArgs& args) {
  const RmsNormArgs& row = args.row;
  const size_t count = static_cast<size_t>(row.rows) * static_cast<size_t>(row.hidden);
  for (size_t i = 0; i < count; ++i) {
    float sum = ToFloat(args.parts[0][i]);
    for (int rank = 1; rank < args.ranks; ++rank) sum += ToFloat(args.parts[rank][i]);
    row.residual[i] = ToBf16(ToFloat(row.residual[i]) + sum);
  }
  if (row.gamma != nullptr) RmsNorm(row);
}

}  // namespace behemoth::kernels::reference
