// The one-shot sum. Limit: at few rows the latency of one announcement and one read over the link;
// from about 64 rows on the link's bytes. A row is one block's: 24 KB a part at 12,288 columns.
#include "kernels/all_reduce/all_reduce.h"
#include "kernels/all_reduce/rank_meeting.cuh"
#include "kernels/common/launch.cuh"
#include "kernels/common/ptx.cuh"
#include "kernels/fused/norm_row.cuh"

namespace behemoth::kernels {
namespace {

template <int kRanks>
__device__ Addition SumOfParts(const RankSumArgs& args, size_t at) {
  uint4 part[kRanks];
#pragma unroll
  for (int r = 0; r < kRanks; ++r) part[r] = reinterpret_cast<const uint4*>(args.parts[r])[at];
  Vector8 sum = Unpack(part[0]);
#pragma unroll
  for (int r = 1; r < kRanks; ++r) {
    const Vector8 next = Unpack(part[r]);
#pragma unroll
    for (int e = 0; e < 8; ++e) sum.v[e] += next.v[e];
  }
  return {.delta = sum, .residual = reinterpret_cast<const uint4*>(args.row.residual)[at]};
}

template <int kRanks>
__global__ __launch_bounds__(kNormThreads) void SumNormKernel(const RankSumArgs args) {
  ptx::AllowSuccessor();
  const auto wait = [&] {
    ptx::WaitForPredecessor();
    Meet<kRanks>(args.meeting, static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x));
  };
  NormRow(
      args.row, wait, [&](size_t at) { return SumOfParts<kRanks>(args, at); },
      [&](size_t at, const Addition& a) { return AddToResidual(args.row, at, a); });
}

template <int kRanks>
__global__ __launch_bounds__(kNormThreads) void SumKernel(const RankSumArgs args) {
  ptx::AllowSuccessor();
  ptx::WaitForPredecessor();
  Meet<kRanks>(args.meeting, static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x));
  const int pieces = args.row.hidden / 8;
  const size_t first = static_cast<size_t>(blockIdx.x) * pieces;
  for (int piece = threadIdx.x; piece < pieces; piece += kNormThreads) {
    AddToResidual(args.row, first + piece, SumOfParts<kRanks>(args, first + piece));
  }
}

template <int kRanks>
KernelError LaunchFor(const RankSumArgs& args, const LaunchContext& context) {
  const LaunchShape shape = {dim3(args.row.rows), dim3(kNormThreads)};
  return args.row.gamma == nullptr ? Launch(SumKernel<kRanks>, shape, context, args)
                                   : Launch(SumNormKernel<kRanks>, shape, context, args);
}

}  // namespace

KernelError LaunchRankSum(const RankSumArgs& args, const LaunchContext& context) {
  const RmsNormArgs& row = args.row;
  if (row.hidden <= 0 || row.hidden % 8 != 0) return {kInvalidArgument, "rank sum: hidden"};
  if (const KernelError wrong = CheckMeeting(args.meeting, args.parts); !wrong.ok()) return wrong;
  if (row.residual == nullptr || row.delta != nullptr) {
    return {kInvalidArgument, "rank sum: residual, delta"};
  }
  const bool no_output = row.out.plain == nullptr && row.out.packed == nullptr;
  if (row.gamma != nullptr &&
      (no_output || (row.out.packed != nullptr && row.out.packed_rows < row.rows))) {
    return {kInvalidArgument, "rank sum: out"};
  }
  if (row.rows <= 0) return {};
  return ForRanks(args.meeting.ranks,
                  [&](auto ranks) { return LaunchFor<ranks()>(args, context); });
}

}  // namespace behemoth::kernels
