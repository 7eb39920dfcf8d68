// Embedding, RMSNorm, SiLU * up, block copies. Limit: bytes in prefill, latency in decode (a row of
// 12,288 is 24 KB: one block, three loads a thread, two barriers).
#include "kernels/common/launch.cuh"
#include "kernels/common/ptx.cuh"
#include "kernels/fused/fused.h"
#include "kernels/fused/vector8.cuh"

namespace behemoth::kernels {
namespace {

constexpr int kThreads = 512;
constexpr int kHeldPieces = 4;  // of 8 columns, kept in registers per thread: rows up to 16,384
constexpr int kPiecesPerBlock = 2048;  // of SiluMul

__global__ __launch_bounds__(kThreads) void EmbeddingKernel(const EmbeddingArgs args) {
  ptx::AllowSuccessor();
  ptx::WaitForPredecessor();
  const int row = blockIdx.x;
  int id = args.token_ids[row];
  if (id < 0 && args.slot != nullptr) id = args.slot_token[args.slot[row]];
  const bool is_known = id >= 0 && id < args.vocabulary;
  const int pieces = args.hidden / 8;
  const uint4* from = reinterpret_cast<const uint4*>(args.table) + static_cast<size_t>(id) * pieces;
  uint4* to = reinterpret_cast<uint4*>(args.out) + static_cast<size_t>(row) * pieces;
  for (int i = threadIdx.x; i < pieces; i += kThreads) {
    to[i] = is_known ? from[i] : make_uint4(0, 0, 0, 0);
  }
}

// Sum over the block in a fixed order: lanes by halving, then warps ascending.
__device__ float BlockSum(float value) {
  __shared__ float of_warp[kThreads / 32];
  for (int distance = 16; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(~0u, value, distance);
  }
  if ((threadIdx.x & 31) == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0.0f;
#pragma unroll
  for (int warp = 0; warp < kThreads / 32; ++warp) sum += of_warp[warp];
  return sum;
}

__device__ Vector8 LoadResidual(const RmsNormArgs& args, size_t at) {
  uint4* residual = reinterpret_cast<uint4*>(args.residual);
  Vector8 x = Unpack(residual[at]);
  if (args.delta == nullptr) return x;
  const Vector8 d = Unpack(reinterpret_cast<const uint4*>(args.delta)[at]);
#pragma unroll
  for (int e = 0; e < 8; ++e) x.v[e] = RoundBf16(x.v[e] + d.v[e]);
  residual[at] = Pack(x);
  return x;
}

__device__ float SumOfSquares(const Vector8& x) {
  float sum = 0.0f;
#pragma unroll
  for (int e = 0; e < 8; ++e) sum = fmaf(x.v[e], x.v[e], sum);
  return sum;
}

__device__ uint4 Normalise(const Vector8& x, float factor, uint4 gamma) {
  const Vector8 g = Unpack(gamma);
  Vector8 y;
#pragma unroll
  for (int e = 0; e < 8; ++e) y.v[e] = g.v[e] * RoundBf16(x.v[e] * factor);
  return Pack(y);
}

__global__ __launch_bounds__(kThreads) void RmsNormKernel(const RmsNormArgs args) {
  ptx::AllowSuccessor();
  const int row = blockIdx.x, pieces = args.hidden / 8;
  const uint4* gamma = reinterpret_cast<const uint4*>(args.gamma);
  uint4 g[kHeldPieces];
#pragma unroll
  for (int i = 0; i < kHeldPieces; ++i) {
    const int piece = threadIdx.x + i * kThreads;
    if (piece < pieces) g[i] = gamma[piece];
  }
  ptx::WaitForPredecessor();
  const size_t first = static_cast<size_t>(row) * pieces;
  Vector8 x[kHeldPieces];
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kHeldPieces; ++i) {
    const int piece = threadIdx.x + i * kThreads;
    if (piece < pieces) {
      x[i] = LoadResidual(args, first + piece);
      sum += SumOfSquares(x[i]);
    }
  }
  for (int piece = threadIdx.x + kHeldPieces * kThreads; piece < pieces; piece += kThreads) {
    sum += SumOfSquares(LoadResidual(args, first + piece));
  }
  const float factor = rsqrtf(BlockSum(sum) / static_cast<float>(args.hidden) + args.epsilon);
#pragma unroll
  for (int i = 0; i < kHeldPieces; ++i) {
    const int piece = threadIdx.x + i * kThreads;
    if (piece < pieces) Store(args.out, row, piece, pieces, Normalise(x[i], factor, g[i]));
  }
  for (int piece = threadIdx.x + kHeldPieces * kThreads; piece < pieces; piece += kThreads) {
    const Vector8 again = Unpack(reinterpret_cast<const uint4*>(args.residual)[first + piece]);
    Store(args.out, row, piece, pieces, Normalise(again, factor, gamma[piece]));
  }
}

__global__ __launch_bounds__(kThreads) void SiluMulKernel(const SiluMulArgs args) {
  ptx::AllowSuccessor();
  ptx::WaitForPredecessor();
  const int row = blockIdx.y, pieces = args.width / 8, run = args.run / 8;
  const uint4* in =
      reinterpret_cast<const uint4*>(args.gate_up) + static_cast<size_t>(row) * 2 * pieces;
  const int end = min(pieces, static_cast<int>(blockIdx.x + 1) * kPiecesPerBlock);
  for (int piece = blockIdx.x * kPiecesPerBlock + threadIdx.x; piece < end; piece += kThreads) {
    const int at = piece / run * 2 * run + piece % run;
    const Vector8 gate = Unpack(in[at]), up = Unpack(in[at + run]);
    Vector8 y;
#pragma unroll
    for (int e = 0; e < 8; ++e) {
      y.v[e] = RoundBf16(gate.v[e] / (1.0f + __expf(-gate.v[e]))) * up.v[e];
    }
    Store(args.out, row, piece, pieces, Pack(y));
  }
}

__global__ __launch_bounds__(kThreads) void KvBlockCopyKernel(const KvBlockCopyArgs args) {
  ptx::AllowSuccessor();
  ptx::WaitForPredecessor();
  const size_t block_bytes = KvBlockBytes(args.shape);
  char* pool = args.first_pool + blockIdx.x * args.layer_stride_bytes;
  const int from = args.from_to[2 * blockIdx.y], to = args.from_to[2 * blockIdx.y + 1];
  const uint4* source = reinterpret_cast<const uint4*>(pool + from * block_bytes);
  uint4* target = reinterpret_cast<uint4*>(pool + to * block_bytes);
  for (size_t i = threadIdx.x; i < block_bytes / 16; i += kThreads) target[i] = source[i];
}

KernelError CheckOutput(const RowOutput& out, int rows, const char* operation) {
  const bool none = out.plain == nullptr && out.packed == nullptr;
  const bool narrow = out.packed != nullptr && out.packed_rows < rows;
  return none || narrow ? KernelError{kInvalidArgument, operation} : KernelError{};
}

bool IsWidth(int width) { return width > 0 && width % 8 == 0; }

}  // namespace

KernelError LaunchEmbedding(const EmbeddingArgs& args, const LaunchContext& context) {
  if (!IsWidth(args.hidden)) return {kInvalidArgument, "embedding: hidden"};
  if (args.table == nullptr || args.token_ids == nullptr || args.out == nullptr ||
      (args.slot != nullptr && args.slot_token == nullptr)) {
    return {kInvalidArgument, "embedding: pointer"};
  }
  if (args.rows <= 0) return {};
  return Launch(EmbeddingKernel, {dim3(args.rows), dim3(kThreads)}, context, args);
}

KernelError LaunchRmsNorm(const RmsNormArgs& args, const LaunchContext& context) {
  if (!IsWidth(args.hidden)) return {kInvalidArgument, "rms norm: hidden"};
  if (args.residual == nullptr || args.gamma == nullptr) {
    return {kInvalidArgument, "rms norm: pointer"};
  }
  const KernelError error = CheckOutput(args.out, args.rows, "rms norm: out");
  if (!error.ok() || args.rows <= 0) return error;
  return Launch(RmsNormKernel, {dim3(args.rows), dim3(kThreads)}, context, args);
}

KernelError LaunchSiluMul(const SiluMulArgs& args, const LaunchContext& context) {
  if (!IsWidth(args.run) || args.width <= 0 || args.width % args.run != 0) {
    return {kInvalidArgument, "silu mul: width, run"};
  }
  if (args.gate_up == nullptr) return {kInvalidArgument, "silu mul: gate_up"};
  const KernelError error = CheckOutput(args.out, args.rows, "silu mul: out");
  if (!error.ok() || args.rows <= 0) return error;
  if (args.rows > 65535) return {kInvalidArgument, "silu mul: rows"};
  const int blocks = (args.width / 8 + kPiecesPerBlock - 1) / kPiecesPerBlock;
  return Launch(SiluMulKernel, {dim3(blocks, args.rows), dim3(kThreads)}, context, args);
}

KernelError LaunchKvBlockCopy(const KvBlockCopyArgs& args, const LaunchContext& context) {
  if (args.first_pool == nullptr || args.from_to == nullptr) {
    return {kInvalidArgument, "kv block copy: pointer"};
  }
  if (args.pairs <= 0 || args.layers <= 0) return {};
  if (args.pairs > 65535) return {kInvalidArgument, "kv block copy: pairs"};
  return Launch(KvBlockCopyKernel, {dim3(args.layers, args.pairs), dim3(kThreads)}, context, args);
}

}  // namespace behemoth::kernels
