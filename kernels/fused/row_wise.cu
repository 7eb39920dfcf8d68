// Embedding, RMSNorm, SiLU * up, block copies. Limit: bytes in prefill, latency in decode (a row of
// 12,288 is 24 KB: one block, three loads a thread, two barriers).
#include "kernels/common/launch.cuh"
#include "kernels/common/ptx.cuh"
#include "kernels/fused/fused.h"
#include "kernels/fused/norm_row.cuh"
#include "kernels/fused/vector8.cuh"

namespace behemoth::kernels {
namespace {

constexpr int kThreads = kNormThreads;
constexpr int kPiecesPerBlock = 2048;  // of SiluMul

__global__ __launch_bounds__(kThreads) void EmbeddingKernel(const EmbeddingArgs args) {
  ptx::AllowSuccessor();
  ptx::WaitForPredecessor();
  const int row = blockIdx.x;
  int id = args.token_ids[row];
  if (id < 0 && args.slot != nullptr) id = args.slot_token[args.slot[row]];
  const bool is_known = id >= 0 && id < args.vocabulary;
  const int pieces = args.hidden / 8;
  const bf16* table = args.table;
  if (is_known && args.spread_rows > 0) {
    table = args.spread[id / args.spread_rows];
    id %= args.spread_rows;
  }
  const uint4* from = reinterpret_cast<const uint4*>(table) + static_cast<size_t>(id) * pieces;
  uint4* to = reinterpret_cast<uint4*>(args.out) + static_cast<size_t>(row) * pieces;
  for (int i = threadIdx.x; i < pieces; i += kThreads) {
    to[i] = is_known ? from[i] : make_uint4(0, 0, 0, 0);
  }
}

__device__ Vector8 LoadResidual(const RmsNormArgs& args, size_t at) {
  if (args.delta == nullptr) return Unpack(reinterpret_cast<const uint4*>(args.residual)[at]);
  return AddToResidual(args, at,
                       {.delta = Unpack(reinterpret_cast<const uint4*>(args.delta)[at]),
                        .residual = reinterpret_cast<const uint4*>(args.residual)[at]});
}

__global__ __launch_bounds__(kThreads) void AddRowsKernel(const AddRowsArgs args) {
  ptx::AllowSuccessor();
  ptx::WaitForPredecessor();
  const int pieces = args.hidden / 8;
  const size_t first = static_cast<size_t>(blockIdx.x) * pieces;
  const RmsNormArgs rows = {.delta = args.delta, .residual = args.residual};
  for (int i = threadIdx.x; i < pieces; i += kThreads) LoadResidual(rows, first + i);
}

__global__ __launch_bounds__(kNormThreads) void RmsNormKernel(const RmsNormArgs args) {
  ptx::AllowSuccessor();
  NormRow(
      args, [] { ptx::WaitForPredecessor(); }, [&](size_t at) { return LoadResidual(args, at); },
      [](size_t, const Vector8& x) { return x; });
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
  const bool spread = args.spread_rows > 0;
  if (spread && (args.vocabulary + args.spread_rows - 1) / args.spread_rows > kMaxTables) {
    return {kInvalidArgument, "embedding: spread_rows"};
  }
  if ((spread ? args.spread[0] : args.table) == nullptr || args.token_ids == nullptr ||
      args.out == nullptr || (args.slot != nullptr && args.slot_token == nullptr)) {
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

KernelError LaunchAddRows(const AddRowsArgs& args, const LaunchContext& context) {
  if (!IsWidth(args.hidden)) return {kInvalidArgument, "add rows: hidden"};
  if (args.residual == nullptr || args.delta == nullptr) {
    return {kInvalidArgument, "add rows: pointer"};
  }
  if (args.rows <= 0) return {};
  return Launch(AddRowsKernel, {dim3(args.rows), dim3(kThreads)}, context, args);
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
