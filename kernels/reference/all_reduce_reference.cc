#include "kernels/all_reduce/all_reduce.h"

namespace behemoth::kernels::reference {

void RankSum(const RankSumArgs& args) {
  const RmsNormArgs& row = args.row;
  const size_t count = static_cast<size_t>(row.rows) * static_cast<size_t>(row.hidden);
  for (size_t i = 0; i < count; ++i) {
    float sum = ToFloat(args.parts[0][i]);
    for (int rank = 1; rank < args.meeting.ranks; ++rank) sum += ToFloat(args.parts[rank][i]);
    row.residual[i] = ToBf16(ToFloat(row.residual[i]) + sum);
  }
  if (row.gamma != nullptr) RmsNorm(row);
}

void RankGather(const RankGatherArgs& args) {
  const auto cols = static_cast<size_t>(args.cols), stride = static_cast<size_t>(args.stride);
  for (size_t row = 0; row < static_cast<size_t>(args.rows); ++row) {
    for (size_t rank = 0; rank < static_cast<size_t>(args.meeting.ranks); ++rank) {
      for (size_t c = 0; c < cols; ++c) {
        args.out[row * stride + rank * cols + c] = args.parts[rank][row * cols + c];
      }
    }
  }
}

}  // namespace behemoth::kernels::reference
