// Logits of all ranks, side by side. Limit: the link's latency at few rows, its bytes at many.
#include "kernels/all_reduce/all_reduce.h"
#include "kernels/all_reduce/rank_meeting.cuh"
#include "kernels/common/launch.cuh"
#include "kernels/common/ptx.cuh"

namespace behemoth::kernels {
namespace {

constexpr int kThreads = 512;
constexpr int kPiecesEach = 4;  // of 16 bytes, of a thread: all under way at once

template <int kRanks>
__global__ __launch_bounds__(kThreads) void RankGatherKernel(const RankGatherArgs args) {
  ptx::AllowSuccessor();
  ptx::WaitForPredecessor();
  Meet<kRanks>(args.meeting, static_cast<int>(blockIdx.y * gridDim.x + blockIdx.x),
               static_cast<int>(gridDim.x * gridDim.y));
  const int pieces = args.cols / 4, row = blockIdx.y;
  uint4* const out = reinterpret_cast<uint4*>(args.out + static_cast<size_t>(row) * args.stride);
  const int first = blockIdx.x * kThreads * kPiecesEach + threadIdx.x;
  uint4 held[kPiecesEach];
#pragma unroll
  for (int i = 0; i < kPiecesEach; ++i) {
    const int at = first + i * kThreads;
    if (at >= kRanks * pieces) continue;
    const uint4* part = reinterpret_cast<const uint4*>(args.parts[at / pieces]);
    held[i] = part[static_cast<size_t>(row) * pieces + at % pieces];
  }
#pragma unroll
  for (int i = 0; i < kPiecesEach; ++i) {
    const int at = first + i * kThreads;
    if (at < kRanks * pieces) out[at] = held[i];
  }
}

template <int kRanks>
KernelError LaunchFor(const RankGatherArgs& args, const LaunchContext& context) {
  constexpr int kEach = kThreads * kPiecesEach;
  const int blocks = (kRanks * (args.cols / 4) + kEach - 1) / kEach;
  return Launch(RankGatherKernel<kRanks>, {dim3(blocks, args.rows), dim3(kThreads)}, context, args);
}

}  // namespace

KernelError LaunchRankGather(const RankGatherArgs& args, const LaunchContext& context) {
  if (args.cols <= 0 || args.cols % 4 != 0) return {kInvalidArgument, "rank gather: cols"};
  if (args.stride % 4 != 0 || args.stride < args.meeting.ranks * args.cols) {
    return {kInvalidArgument, "rank gather: stride"};
  }
  if (args.out == nullptr) return {kInvalidArgument, "rank gather: out"};
  if (args.rows > 65535) return {kInvalidArgument, "rank gather: rows"};
  if (const KernelError wrong = CheckMeeting(args.meeting, args.parts); !wrong.ok()) return wrong;
  if (args.rows <= 0) return {};
  return ForRanks(args.meeting.ranks,
                  [&](auto ranks) { return LaunchFor<ranks()>(args, context); });
}

}  // namespace behemoth::kernels
