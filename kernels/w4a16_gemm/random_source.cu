#include <algorithm>

#include "kernels/common/launch.cuh"
#include "kernels/common/ptx.cuh"
#include "kernels/w4a16_gemm/random_source.h"

namespace behemoth::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 1 << 16;

__global__ void RandomInt4Kernel(RandomInt4 target, float scale, int64_t words, int64_t scales) {
  ptx::WaitForPredecessor();
  const int64_t stride = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < words + scales; i += stride) {
    const uint64_t output = SplitMix64(target.seed, static_cast<uint64_t>(i));
    if (i < words) {
      target.weight[i] = static_cast<uint32_t>(output);
    } else {
      target.scale[i - words] = RandomScale(scale, output);
    }
  }
}

}  // namespace

KernelError LaunchRandomInt4(const RandomInt4& target, const LaunchContext& context) {
  if (target.n < 1 || target.group_columns < 8 || target.group_columns % 8 != 0 || target.k < 1 ||
      target.k % target.group_columns != 0) {
    return {kInvalidArgument, "LaunchRandomInt4: groups of group_columns do not tile k"};
  }
  const int64_t words = int64_t{target.n} * (target.k / 8);
  const int64_t scales = int64_t{target.n} * (target.k / target.group_columns);
  const int64_t blocks = std::min((words + scales + kThreads - 1) / kThreads, kMaxBlocks);
  return Launch(RandomInt4Kernel, {dim3(static_cast<unsigned>(blocks)), dim3(kThreads)}, context,
                target, RandomScaleOf(target.k), words, scales);
}

}  // namespace behemoth::kernels
