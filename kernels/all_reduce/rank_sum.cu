// The one-shot sum. Limit: at few rows the latency of one announcement and one read over the link;
// from about 64 rows on the link's bytes. A row is one block's: 24 KB a part at 12,288 columns.
#include "kernels/all_reduce/all_reduce.h"
#include "kernels/common/launch.cuh"
#include "kernels/common/ptx.cuh"
#include "kernels/fused/norm_row.cuh"

namespace behemoth::kernels {
namespace {

constexpr int kLaunches = kMaxRanks;     // of a rank's flags: launches so far, without this one
constexpr int kKnowing = kMaxRanks + 1;  // blocks of this one that have read that
constexpr int kSpinsPerLook = 1 << 12;   // between two looks at `aborted`, over PCIe

// The memory of other GPUs is in the scope of the system: PTX ISA, "memory consistency model".
__device__ inline void StoreRelease(uint32_t* at, uint32_t value) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(at), "r"(value) : "memory");
}
__device__ inline uint32_t LoadAcquire(const uint32_t* at) {
  uint32_t value;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(at) : "memory");
  return value;
}

// Numbers are compared as distances: they wrap after 4 billion sums.
__device__ inline bool HasCome(uint32_t seen, uint32_t number) {
  return static_cast<int32_t>(seen - number) >= 0;
}

// Returns when every rank's part may be read. The predecessor, which wrote ours, has ended. The
// last block that has read the launch's number counts it, while the sum goes on.
template <int kRanks>
__device__ void Meet(const RankSumArgs& args) {
  uint32_t* const own = args.flags[args.rank];
  const int peer = threadIdx.x;
  if (peer < kRanks && peer != args.rank) {
    const uint32_t number = *static_cast<volatile uint32_t*>(own + kLaunches) + 1;
    if (blockIdx.x == 0) StoreRelease(args.flags[peer] + args.rank, number);
    int spins = 0;
    while (!HasCome(LoadAcquire(own + peer), number)) {
      if (++spins % kSpinsPerLook == 0 && *args.aborted != 0) break;
    }
  }
  __syncthreads();
  if (threadIdx.x != kNormThreads - 1 || atomicAdd(own + kKnowing, 1) != gridDim.x - 1) return;
  own[kKnowing] = 0;
  own[kLaunches] += 1;
}

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
    Meet<kRanks>(args);
  };
  NormRow(
      args.row, wait, [&](size_t at) { return SumOfParts<kRanks>(args, at); },
      [&](size_t at, const Addition& a) { return AddToResidual(args.row, at, a); });
}

template <int kRanks>
__global__ __launch_bounds__(kNormThreads) void SumKernel(const RankSumArgs args) {
  ptx::AllowSuccessor();
  ptx::WaitForPredecessor();
  Meet<kRanks>(args);
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
  if (args.rank < 0 || args.rank >= args.ranks) return {kInvalidArgument, "rank sum: rank"};
  if (row.hidden <= 0 || row.hidden % 8 != 0) return {kInvalidArgument, "rank sum: hidden"};
  if (row.residual == nullptr || row.delta != nullptr || args.aborted == nullptr) {
    return {kInvalidArgument, "rank sum: pointer"};
  }
  for (int rank = 0; rank < args.ranks && rank < kMaxRanks; ++rank) {
    if (args.parts[rank] == nullptr || args.flags[rank] == nullptr) {
      return {kInvalidArgument, "rank sum: parts, flags"};
    }
  }
  const bool no_output = row.out.plain == nullptr && row.out.packed == nullptr;
  if (row.gamma != nullptr &&
      (no_output || (row.out.packed != nullptr && row.out.packed_rows < row.rows))) {
    return {kInvalidArgument, "rank sum: out"};
  }
  if (row.rows <= 0) return {};
  switch (args.ranks) {
    case 2:
      return LaunchFor<2>(args, context);
    case 4:
      return LaunchFor<4>(args, context);
    case 8:
      return LaunchFor<8>(args, context);
    default:
      return {kInvalidArgument, "rank sum: ranks"};
  }
}

}  // namespace behemoth::kernels
