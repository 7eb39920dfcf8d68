#include <algorithm>

#include "kernels/common/launch.cuh"
#include "kernels/common/ptx.cuh"
#include "kernels/w4a16_gemm/packed_word.h"
#include "kernels/w4a16_gemm/repack.h"

namespace behemoth::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 1 << 16;

__global__ void RepackInt4Kernel(Int4Source source, uint32_t* packed, int64_t words) {
  ptx::WaitForPredecessor();
  const int64_t stride = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < words; i += stride) {
    packed[i] = PackedInt4Word(source, i);
  }
}

__global__ void RepackBf16Kernel(Bf16Source source, uint32_t* packed, int64_t words) {
  ptx::WaitForPredecessor();
  const int64_t stride = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < words; i += stride) {
    packed[i] = PackedBf16Word(source, i);
  }
}

LaunchShape ShapeFor(int64_t words) {
  const int64_t blocks = std::min((words + kThreads - 1) / kThreads, kMaxBlocks);
  return {.grid = dim3(static_cast<unsigned>(blocks)), .block = dim3(kThreads)};
}

}  // namespace

KernelError LaunchRepackInt4(const Int4Source& source, void* packed, const LaunchContext& context) {
  if (source.n < 1 || source.k < 1 || source.k % kInt4UnitColumns != 0) {
    return {kInvalidArgument, "LaunchRepackInt4: k is not a multiple of 128"};
  }
  if (kInt4UnitColumns / UnitGroups(KindOf(source)) != source.group_columns) {
    return {kInvalidArgument, "LaunchRepackInt4: group_columns is not 128, 64 or 32"};
  }
  if (source.interleave_halves && source.n % 16 != 0) {
    return {kInvalidArgument, "LaunchRepackInt4: interleaved n is not a multiple of 16"};
  }
  const int64_t words = PackedBytes(KindOf(source), source.n, source.k) / 4;
  return Launch(RepackInt4Kernel, ShapeFor(words), context, source, static_cast<uint32_t*>(packed),
                words);
}

KernelError LaunchRepackBf16(const Bf16Source& source, void* packed, const LaunchContext& context) {
  if (source.n < 1 || source.k < 1 || source.k % UnitColumns(WeightKind::kBf16) != 0) {
    return {kInvalidArgument, "LaunchRepackBf16: k is not a multiple of 32"};
  }
  if (source.interleave_halves && source.n % 16 != 0) {
    return {kInvalidArgument, "LaunchRepackBf16: interleaved n is not a multiple of 16"};
  }
  const int64_t words = PackedBytes(WeightKind::kBf16, source.n, source.k) / 4;
  return Launch(RepackBf16Kernel, ShapeFor(words), context, source, static_cast<uint32_t*>(packed),
                words);
}

}  // namespace behemoth::kernels
