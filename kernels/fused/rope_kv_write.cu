// RoPE and the KV write, one block per row and 16 heads (head_dim 128). The angles' sines are taken
// once a block. A thread owns columns 8i..8i+7 of both halves of a head: two 16-byte loads, and in
// bf16 exactly two swizzled 16-byte pieces of the tile.
#include <cuda_fp8.h>

#include "kernels/common/launch.cuh"
#include "kernels/common/ptx.cuh"
#include "kernels/fused/fused.h"
#include "kernels/fused/vector8.cuh"

namespace behemoth::kernels {
namespace {

constexpr int kThreads = 128;

__device__ uint2 PackE4m3(const Vector8& x, float inverse_scale) {
  uint32_t word[2] = {0, 0};
#pragma unroll
  for (int e = 0; e < 8; ++e) {
    const uint32_t code = __nv_cvt_float_to_fp8(x.v[e] * inverse_scale, __NV_SATFINITE, __NV_E4M3);
    word[e / 4] |= code << (8 * (e % 4));
  }
  return make_uint2(word[0], word[1]);
}

__device__ void StoreKv(const RopeKvWriteArgs& args, int block, int token, int part, int head,
                        int dim, const Vector8& x) {
  char* at = static_cast<char*>(args.kv) + KvByteOffset(args.shape, block, part, head, token, dim);
  if (args.shape.type == KvType::kBf16) {
    *reinterpret_cast<uint4*>(at) = Pack(x);
  } else {
    const float* scale = part == 0 ? args.k_scale : args.v_scale;
    *reinterpret_cast<uint2*>(at) = PackE4m3(x, scale == nullptr ? 1.0f : 1.0f / scale[head]);
  }
}

__global__ __launch_bounds__(kThreads) void RopeKvWriteKernel(const RopeKvWriteArgs args) {
  __shared__ float cosine[64], sine[64];
  ptx::AllowSuccessor();
  ptx::WaitForPredecessor();
  const int row = blockIdx.x;
  const int position = args.position[row];
  if (position < 0) return;
  const int half = args.shape.head_dim / 2;
  if (static_cast<int>(threadIdx.x) < half) {
    const float angle = static_cast<float>(position) * args.inverse_frequency[threadIdx.x];
    sincosf(angle, &sine[threadIdx.x], &cosine[threadIdx.x]);
  }
  __syncthreads();
  const int threads_per_head = half / 8;
  const int head = blockIdx.y * (kThreads / threads_per_head) + threadIdx.x / threads_per_head;
  const int all_heads = args.q_heads + 2 * args.shape.kv_heads;
  if (head >= all_heads) return;
  const int dim = threadIdx.x % threads_per_head * 8;
  const size_t at = (static_cast<size_t>(row) * all_heads + head) * args.shape.head_dim + dim;
  Vector8 low = Unpack(*reinterpret_cast<const uint4*>(args.qkv + at));
  Vector8 high = Unpack(*reinterpret_cast<const uint4*>(args.qkv + at + half));
  const bool is_value = head >= args.q_heads + args.shape.kv_heads;
  if (!is_value) {
#pragma unroll
    for (int e = 0; e < 8; ++e) {
      const float a = low.v[e], b = high.v[e], c = cosine[dim + e], s = sine[dim + e];
      low.v[e] = a * c - b * s;
      high.v[e] = b * c + a * s;
    }
  }
  if (head < args.q_heads) {
    bf16* q = args.q + (static_cast<size_t>(row) * args.q_heads + head) * args.shape.head_dim + dim;
    *reinterpret_cast<uint4*>(q) = Pack(low);
    *reinterpret_cast<uint4*>(q + half) = Pack(high);
    return;
  }
  const int line = args.table_row == nullptr ? row : args.table_row[row];
  const int entry = position / kTokensPerBlock, token = position % kTokensPerBlock;
  if (entry >= args.block_table_stride) return;
  const int block = args.block_table[static_cast<size_t>(line) * args.block_table_stride + entry];
  const int part = is_value ? 1 : 0;
  const int kv_head = head - args.q_heads - part * args.shape.kv_heads;
  StoreKv(args, block, token, part, kv_head, dim, low);
  StoreKv(args, block, token, part, kv_head, dim + half, high);
}

}  // namespace

KernelError LaunchRopeKvWrite(const RopeKvWriteArgs& args, const LaunchContext& context) {
  if (args.shape.head_dim != 64 && args.shape.head_dim != 128) {
    return {kInvalidArgument, "rope: head_dim"};
  }
  if (args.q_heads <= 0 || args.shape.kv_heads <= 0) return {kInvalidArgument, "rope: heads"};
  if (args.qkv == nullptr || args.position == nullptr || args.inverse_frequency == nullptr ||
      args.block_table == nullptr || args.q == nullptr || args.kv == nullptr) {
    return {kInvalidArgument, "rope: pointer"};
  }
  if (args.rows <= 0) return {};
  const int heads_per_block = kThreads / (args.shape.head_dim / 16);
  const int all_heads = args.q_heads + 2 * args.shape.kv_heads;
  const int blocks = (all_heads + heads_per_block - 1) / heads_per_block;
  return Launch(RopeKvWriteKernel, {dim3(args.rows, blocks), dim3(kThreads)}, context, args);
}

}  // namespace behemoth::kernels
