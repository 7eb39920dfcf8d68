// The row-wise steps of the forward pass between its matrix products. All of them are bound by
// latency in decode and by bytes in prefill; all take decode rows and prefill rows in one call,
// read what varies per step (ids, positions, block tables) on the device, and only enqueue. A row's
// bits depend on that row alone. Numerics are those of the Hugging Face reference where it rounds
// to bf16, and fp32 between the roundings; each struct says where they are. Errors:
// kInvalidArgument naming the field, or what the launch reports.
#pragma once

#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/kernel_error.h"
#include "kernels/common/launch_context.h"
#include "kernels/paged_attention/kv_layout.h"

namespace behemoth::kernels {

// Where a row-wise result goes: `plain` [rows, width], or `packed`, the GEMM's activation layout
// [width / 8][packed_rows][8] (kernels/w4a16_gemm/README.md), or both. Rows past the last stay
// untouched.
struct RowOutput {
  bf16* plain = nullptr;
  bf16* packed = nullptr;
  int packed_rows = 0;
};

// Tables that a vocabulary can be spread over: parts of ranks, read out of each other's memory.
inline constexpr int kMaxTables = 8;

// out[r] = table[id(r)]. id(r) = token_ids[r], or slot_token[slot[r]] where token_ids[r] < 0: the
// token that the sampler left on the device. An id outside the vocabulary gives a row of zeros.
struct EmbeddingArgs {
  const bf16* table = nullptr;  // [vocabulary, hidden]
  // Not 0: instead, id i is row i % spread_rows of spread[i / spread_rows].
  int spread_rows = 0;
  const bf16* spread[kMaxTables] = {};  // [spread_rows, hidden]
  const int32_t* token_ids = nullptr;   // [rows]
  const int32_t* slot = nullptr;        // [rows]; null: no row is pending
  const int32_t* slot_token = nullptr;  // [slots]
  bf16* out = nullptr;                  // [rows, hidden]
  int rows = 0;
  int vocabulary = 0;
  int hidden = 0;  // % 8 == 0
};

// residual = bf16(residual + delta) where delta is given;
// out = bf16(gamma * bf16(residual / sqrt(mean(residual^2) + epsilon))).
struct RmsNormArgs {
  const bf16* delta = nullptr;  // [rows, hidden] or null
  bf16* residual = nullptr;     // [rows, hidden]; written only where delta is given
  const bf16* gamma = nullptr;  // [hidden]
  RowOutput out;
  int rows = 0;
  int hidden = 0;  // % 8 == 0
  float epsilon = 1e-5f;
};

// residual = bf16(residual + delta).
struct AddRowsArgs {
  bf16* residual = nullptr;     // [rows, hidden]
  const bf16* delta = nullptr;  // [rows, hidden]
  int rows = 0;
  int hidden = 0;  // % 8 == 0
};

// Splits the fused projection's row [q heads | k heads | v heads], rotates q and k by the row's
// position (pairs (i, i + head_dim / 2), angle = position * inverse_frequency[i], all in fp32, one
// rounding at the end), and stores k and v where attention will look for them.
struct RopeKvWriteArgs {
  const bf16* qkv = nullptr;                 // [rows, (q_heads + 2 kv_heads) * head_dim]
  const int32_t* position = nullptr;         // [rows]; < 0: an inactive row, nothing is written
  const float* inverse_frequency = nullptr;  // [head_dim / 2]
  const int32_t* block_table = nullptr;      // [sequences, block_table_stride]
  const int32_t* table_row = nullptr;  // [rows]: the row's line of block_table; null: row r, line r
  int block_table_stride = 0;          // a position past 64 * stride is not written
  bf16* q = nullptr;                   // [rows, q_heads, head_dim]
  void* kv = nullptr;                  // the layer's pool, kv_layout.h
  const float* k_scale = nullptr;      // [kv_heads], fp8 only: stored = value / scale; null = 1
  const float* v_scale = nullptr;
  KvShape shape;
  int q_heads = 0;
  int rows = 0;
};

// out = bf16(bf16(silu(gate)) * up), silu in fp32. Row = runs of `run` gate columns, then `run` up
// columns; run == width is the plain [gate | up].
struct SiluMulArgs {
  const bf16* gate_up = nullptr;  // [rows, 2 * width]
  RowOutput out;
  int rows = 0;
  int width = 0;  // % run == 0
  int run = 0;    // % 8 == 0
};

// Column c of `out` is column permutation[c] of `in`, both in the GEMM's activation layout
// [columns / 8][packed_rows][8]; pad rows are copied as they are. What a checkpoint with act-order
// (a g_idx that is no plain sequence) needs before each of its linear layers.
struct PermuteColumnsArgs {
  const bf16* in = nullptr;              // 16-byte aligned, as `out`; the two do not overlap
  const int32_t* permutation = nullptr;  // [columns], values in [0, columns), 16-byte aligned
  bf16* out = nullptr;
  int packed_rows = 0;
  int columns = 0;  // % 8 == 0
};

// Copies whole KV blocks of all layers before a shared block is written. Pairs must not overlap.
struct KvBlockCopyArgs {
  char* first_pool = nullptr;  // of layer 0; layer l lies l * layer_stride_bytes behind it
  int64_t layer_stride_bytes = 0;
  const int32_t* from_to = nullptr;  // [pairs, 2]
  KvShape shape;
  int layers = 0;
  int pairs = 0;
};

// Builds with CUDA only.
KernelError LaunchEmbedding(const EmbeddingArgs& args, const LaunchContext& context);
KernelError LaunchRmsNorm(const RmsNormArgs& args, const LaunchContext& context);
KernelError LaunchAddRows(const AddRowsArgs& args, const LaunchContext& context);
KernelError LaunchRopeKvWrite(const RopeKvWriteArgs& args, const LaunchContext& context);
KernelError LaunchSiluMul(const SiluMulArgs& args, const LaunchContext& context);
KernelError LaunchPermuteColumns(const PermuteColumnsArgs& args, const LaunchContext& context);
KernelError LaunchKvBlockCopy(const KvBlockCopyArgs& args, const LaunchContext& context);

// The slow, obvious versions: same arguments, host pointers.
namespace reference {
void Embedding(const EmbeddingArgs& args);
void RmsNorm(const RmsNormArgs& args);
void AddRows(const AddRowsArgs& args);
void RopeKvWrite(const RopeKvWriteArgs& args);
void SiluMul(const SiluMulArgs& args);
void PermuteColumns(const PermuteColumnsArgs& args);
void KvBlockCopy(const KvBlockCopyArgs& args);
}  // namespace reference

}  // namespace behemoth::kernels
