// A thread gathers the eight columns of one row's 16-byte piece. Rows are neighbours in a warp, so
// a load of one column touches whole sectors but uses an eighth of them: 8 times the bytes from L2,
// once from memory. At 2,048 rows of 12,288 that is 400 MB of L2 reads, under a tenth of a
// millisecond beside products of one to five.
#include "kernels/common/launch.cuh"
#include "kernels/common/ptx.cuh"
#include "kernels/fused/fused.h"

namespace behemoth::kernels {
namespace {

constexpr int kThreads = 256;

__global__ __launch_bounds__(kThreads) void PermuteColumnsKernel(const PermuteColumnsArgs args) {
  ptx::AllowSuccessor();
  const int64_t at = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int piece = static_cast<int>(at / args.packed_rows);
  const int row = static_cast<int>(at % args.packed_rows);
  if (piece >= args.columns / 8) return;
  // Constant like weights: read before the wait.
  const int4* from = reinterpret_cast<const int4*>(args.permutation) + 2 * piece;
  const int4 low = from[0], high = from[1];
  const int column[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
  ptx::WaitForPredecessor();
  uint32_t value[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int64_t index = (int64_t{column[i] / 8} * args.packed_rows + row) * 8 + column[i] % 8;
    value[i] = args.in[index].bits;
  }
  reinterpret_cast<uint4*>(args.out)[at] =
      make_uint4(value[0] | value[1] << 16, value[2] | value[3] << 16, value[4] | value[5] << 16,
                 value[6] | value[7] << 16);
}

}  // namespace

KernelError LaunchPermuteColumns(const PermuteColumnsArgs& args, const LaunchContext& context) {
  if (args.columns <= 0 || args.columns % 8 != 0) {
    return {kInvalidArgument, "permute columns: columns"};
  }
  if (args.packed_rows <= 0) return {kInvalidArgument, "permute columns: packed_rows"};
  if (args.in == nullptr || args.permutation == nullptr || args.out == nullptr ||
      args.in == args.out) {
    return {kInvalidArgument, "permute columns: pointer"};
  }
  const int64_t pieces = int64_t{1} * args.columns / 8 * args.packed_rows;
  const auto blocks = static_cast<unsigned>((pieces + kThreads - 1) / kThreads);
  return Launch(PermuteColumnsKernel, {dim3(blocks), dim3(kThreads)}, context, args);
}

}  // namespace behemoth::kernels
