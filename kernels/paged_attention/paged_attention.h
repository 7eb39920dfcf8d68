// Attention of query rows over a paged KV pool (layout: kv_layout.h), grouped query heads, causal.
//   out[i, h] = sum_j softmax_j(scale * k_scale * q[i, h] . k[j, h / group]) * v_scale * v[j, h /
//   group]
// with j over the tokens of the row's sequence up to and including the query's own position.
//
// Two kernels. Decode: one query token per row, any mix of lengths, bound by the bytes of K and V.
// Prefill: chunks of query tokens behind a cached prefix, bound by the tensor cores.
// Both read all lengths on the device: their grids depend on shapes only, so a captured graph
// serves any lengths. Both enqueue only. Numerics: bf16 tensor core products, fp32 sums and
// softmax, the probabilities rounded to bf16 before they meet V (as in FlashAttention-2,
// arXiv:2307.08691).
//
// Determinism. Decode: a row's bits depend on its own q, K, V and length, the model's shape and the
// KV type; not on the batch, the row's place in it, the grid or the device's size. Prefill: a
// query's bits are the same for every cut of the prompt into chunks and every batch. Decode and
// prefill add in different orders: between the two, equal only within rounding.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/device_limits.h"
#include "kernels/common/kernel_error.h"
#include "kernels/common/launch_context.h"
#include "kernels/paged_attention/kv_layout.h"

namespace behemoth::kernels {

struct AttentionShape {
  int q_heads = 0;  // a multiple of kv.kv_heads
  KvShape kv;

  constexpr int group() const { return q_heads / kv.kv_heads; }
};

struct PagedAttentionArgs {
  AttentionShape shape;
  const bf16* q = nullptr;         // [tokens, q_heads, head_dim], rotated; 16-byte aligned
  const void* kv = nullptr;        // this layer's pool; 128-byte aligned
  const float* k_scale = nullptr;  // [kv_heads]; null = 1
  const float* v_scale = nullptr;  // [kv_heads]; null = 1
  // [rows, block_table_stride]: block of tokens 64 i .. 64 i + 63. Entries at and past
  // ceil(kv_len / 64) are never read as blocks and may hold anything.
  const int32_t* block_table = nullptr;
  int block_table_stride = 0;
  // [rows]: tokens visible to the row's last query, itself included. <= 0: the row is inactive and
  // its outputs stay untouched. Longer than the table: cut to it.
  const int32_t* kv_len = nullptr;
  // Prefill: [rows + 1], row r owns query tokens q_start[r] .. q_start[r + 1] - 1, the last at
  // position kv_len[r] - 1. Decode: null, row r is query token r.
  const int32_t* q_start = nullptr;
  int rows = 0;
  int tokens = 0;  // prefill: an upper bound of q_start[rows]; it sizes the grid
  float softmax_scale = 0.0f;
  // At least one output. `out` [tokens, q_heads * head_dim]; `out_packed` is the GEMM's activation
  // layout [q_heads * head_dim / 8][packed_rows][8], see kernels/w4a16_gemm/README.md. Query tokens
  // that begin at row n of a longer step: pass q and out at their n-th row and out_packed + 8 * n,
  // with the whole step's packed_rows.
  bf16* out = nullptr;
  bf16* out_packed = nullptr;
  int packed_rows = 0;
  // True promises that kv_len, block_table and the K and V of all tokens but each row's last were
  // written before this chain of overlapping kernels began (by earlier steps, say). Decode then
  // loads old keys before the predecessor has ended.
  bool history_is_settled = false;
  // Decode: DecodeWorkspaceBytes() for at least `rows`, zeroed once; the kernel leaves it so.
  void* workspace = nullptr;
};

// Decode. A row of up to 512 tokens is one chunk; a longer one is cut into chunks of 256 * 2^n
// tokens, the smallest that give at most `chunks_per_row`. A chunk of one KV head is the unit of
// work.
struct DecodeAttentionConfig {
  int chunks_per_row = 0;
  int stages = 0;  // ring of KV tiles in shared memory
  int blocks = 0;  // grid
  int shared_bytes = 0;

  bool operator==(const DecodeAttentionConfig&) const = default;
};

struct PrefillAttentionConfig {
  int shared_bytes = 0;
  int blocks = 0;  // > 0: the wgmma kernel and its grid; 0: the kernel for every device

  bool operator==(const PrefillAttentionConfig&) const = default;
};

inline constexpr int kMinChunkTokens = 256;
// Folding two chunks costs 3.4 us, streaming 256 tokens more in the same block 1 us.
inline constexpr int kOneChunkTokens = 512;
inline constexpr int kDecodeCounterBytes = 16;  // before the partial sums of a (row, head tile)
inline constexpr int kHeadsPerTile = 16;  // query heads of one KV head that share an MMA's rows

// Pure: depend on their arguments alone. A config with blocks == 0 or shared_bytes == 0 means that
// the device cannot run the shape. chunks_per_row, which decides a row's bits, follows from the
// shape and never from the device.
DecodeAttentionConfig SelectDecodeAttention(const AttentionShape& shape,
                                            const DeviceLimits& limits);
PrefillAttentionConfig SelectPrefillAttention(const AttentionShape& shape,
                                              const DeviceLimits& limits);
// Bytes of the counters and partial sums of up to `rows` rows: launches with fewer rows may share
// it.
size_t DecodeWorkspaceBytes(const AttentionShape& shape, const DecodeAttentionConfig& config,
                            int rows);

// Builds with CUDA only. Errors: kInvalidArgument naming the argument, or what the launch reports.
KernelError LaunchDecodeAttention(const DecodeAttentionConfig& config,
                                  const PagedAttentionArgs& args, const LaunchContext& context);
KernelError LaunchPrefillAttention(const PrefillAttentionConfig& config,
                                   const PagedAttentionArgs& args, const LaunchContext& context);

// The first violated precondition of the shape and pointers, or ok. Shared by both launches.
KernelError CheckAttentionArgs(const PagedAttentionArgs& args);

// The slow, obvious version of both kernels: host pointers, exact softmax in double, no workspace.
namespace reference {
void PagedAttention(const PagedAttentionArgs& args);
}

BEHEMOTH_HOST_DEVICE constexpr int DecodeChunkTokens(int kv_len, int chunks_per_row) {
  if (kv_len <= kOneChunkTokens) return kOneChunkTokens;
  int tokens = kMinChunkTokens;
  while (tokens < (kv_len + chunks_per_row - 1) / chunks_per_row) tokens *= 2;
  return tokens;
}

}  // namespace behemoth::kernels
