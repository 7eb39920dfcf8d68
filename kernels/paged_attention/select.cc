#include <algorithm>

#include "kernels/paged_attention/paged_attention.h"
#include "kernels/paged_attention/prefill_kernels.h"

namespace behemoth::kernels {
namespace {

int CeilDivide(int a, int b) { return (a + b - 1) / b; }

bool IsSupported(const AttentionShape& shape) {
  const bool heads =
      shape.kv.kv_heads > 0 && shape.q_heads > 0 && shape.q_heads % shape.kv.kv_heads == 0;
  return heads && (shape.kv.head_dim == 64 || shape.kv.head_dim == 128);
}

// Shared memory of decode beside the ring: the probabilities of 256 tokens, [16][256 + 8] bf16; row
// maxima and sums of four warps; two barriers of 8 bytes a stage for up to 12 stages.
constexpr int kDecodeFixedBytes = 16 * (256 + 8) * 2 + 2 * 4 * 16 * 4 + 2 * 12 * 8;
constexpr int kMaxStages = 12;
constexpr int kReservedBytesPerBlock = 1024;  // what the hardware takes of each resident block

}  // namespace

// Two blocks an SM: one block's softmax hides behind the other's stream. Bytes in flight
// that the memory needs: 3 TB/s * 1 us / 132 SMs = 23 KB an SM; the ring holds several times that.
DecodeAttentionConfig SelectDecodeAttention(const AttentionShape& shape,
                                            const DeviceLimits& limits) {
  if (!IsSupported(shape)) return {};
  constexpr int kBlocksPerSm = 2;
  const int tile_bytes = KvTileBytes(shape.kv);
  const int per_block =
      std::min(limits.shared_bytes_per_block,
               limits.shared_bytes_per_sm / kBlocksPerSm - kReservedBytesPerBlock);
  const int stages = std::min(kMaxStages, (per_block - kDecodeFixedBytes) / tile_bytes);
  if (stages < 2) return {};
  const int units = shape.kv.kv_heads * CeilDivide(shape.group(), kHeadsPerTile);
  // A long row alone should give each of the 2 * 132 blocks of a large device a chunk; shorter
  // chunks cost a batch more folding (8 rows of 8k: 2 % more time for 32 chunks than for 16).
  return {.chunks_per_row = std::clamp(256 / units, 16, 64),
          .stages = stages,
          .blocks = kBlocksPerSm * limits.sm_count,
          .shared_bytes = stages * tile_bytes + kDecodeFixedBytes};
}

PrefillAttentionConfig SelectPrefillAttention(const AttentionShape& shape,
                                              const DeviceLimits& limits) {
  if (!IsSupported(shape)) return {};
  if (limits.has_wgmma() && PrefillWgmmaBytes(shape.kv) <= limits.shared_bytes_per_block) {
    return {.shared_bytes = PrefillWgmmaBytes(shape.kv), .blocks = limits.sm_count};
  }
  if (PrefillMmaBytes(shape.kv) > limits.shared_bytes_per_block) return {};
  return {.shared_bytes = PrefillMmaBytes(shape.kv)};
}

size_t DecodeWorkspaceBytes(const AttentionShape& shape, const DecodeAttentionConfig& config,
                            int rows) {
  const size_t units = static_cast<size_t>(shape.kv.kv_heads) *
                       static_cast<size_t>(CeilDivide(shape.group(), kHeadsPerTile));
  const size_t heads = static_cast<size_t>(std::min(shape.group(), kHeadsPerTile));
  const size_t floats = heads * static_cast<size_t>(shape.kv.head_dim + 2);
  const size_t partial = (floats + 3) / 4 * 4 * sizeof(float);  // whole 16-byte pieces
  return static_cast<size_t>(rows) * units *
         (kDecodeCounterBytes + static_cast<size_t>(config.chunks_per_row) * partial);
}

KernelError CheckAttentionArgs(const PagedAttentionArgs& args) {
  if (!IsSupported(args.shape)) return {kInvalidArgument, "attention: shape"};
  if (args.q == nullptr) return {kInvalidArgument, "attention: q"};
  if (args.kv == nullptr) return {kInvalidArgument, "attention: kv"};
  if (args.block_table == nullptr || args.block_table_stride <= 0) {
    return {kInvalidArgument, "attention: block_table"};
  }
  if (args.kv_len == nullptr) return {kInvalidArgument, "attention: kv_len"};
  if (args.rows < 0) return {kInvalidArgument, "attention: rows"};
  if (args.out == nullptr && args.out_packed == nullptr) {
    return {kInvalidArgument, "attention: out"};
  }
  const int tokens = args.q_start == nullptr ? args.rows : args.tokens;
  if (args.out_packed != nullptr && args.packed_rows < tokens) {
    return {kInvalidArgument, "attention: packed_rows"};
  }
  return {};
}

}  // namespace behemoth::kernels
