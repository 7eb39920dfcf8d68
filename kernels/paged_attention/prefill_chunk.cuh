// Which query rows a block of prefill attention works on. The heads that share K and V are packed
// with the tokens: packed row r of a chunk is query token r / group, head r % group.
#pragma once

#include "kernels/paged_attention/paged_attention.h"

namespace behemoth::kernels {

inline constexpr int kPrefillRows = 128;  // packed rows of a block

struct PrefillChunk {
  int row = -1;        // of the block table; -1: no such piece
  int q_begin, q_len;  // query tokens
  int first_packed;    // of the block's 128 rows
  int kv_len;

  // Tokens that packed row `packed` sees. Rows past the chunk's end see what its last token sees.
  __device__ int Visible(int packed, int group) const {
    return max(0, kv_len - q_len + min(packed / group, q_len - 1) + 1);
  }
  // The same of the block's last row: keys past it are nobody's.
  __device__ int Longest(int group) const {
    return Visible(first_packed + kPrefillRows - 1, group);
  }
};

// Piece `index` of all chunks, the rows of the batch in order and each row's last piece first, so
// that the longest pieces of a prompt start first. All lanes of a warp.
__device__ inline PrefillChunk FindChunk(const PagedAttentionArgs& args, int index) {
  const int lane = static_cast<int>(threadIdx.x & 31);
  PrefillChunk chunk;
  for (int first = 0; first < args.rows; first += 32) {
    int begin = 0, length = 0, kv_len = 0;
    if (first + lane < args.rows) {
      begin = args.q_start[first + lane];
      length = args.q_start[first + lane + 1] - begin;
      kv_len = min(args.kv_len[first + lane], args.block_table_stride * kTokensPerBlock);
    }
    int pieces = 0;
    if (length > 0 && kv_len > 0) {
      pieces = (length * args.shape.group() + kPrefillRows - 1) / kPrefillRows;
    }
    int inclusive = pieces;
    for (int distance = 1; distance < 32; distance *= 2) {
      const int below = __shfl_up_sync(~0u, inclusive, distance);
      if (lane >= distance) inclusive += below;
    }
    const uint32_t found = __ballot_sync(~0u, inclusive > index);
    if (found == 0) {
      index -= __shfl_sync(~0u, inclusive, 31);
      continue;
    }
    const int owner = __ffs(static_cast<int>(found)) - 1;
    chunk.row = first + owner;
    chunk.q_begin = __shfl_sync(~0u, begin, owner);
    chunk.q_len = __shfl_sync(~0u, length, owner);
    chunk.first_packed = (__shfl_sync(~0u, inclusive, owner) - 1 - index) * kPrefillRows;
    chunk.kv_len = __shfl_sync(~0u, kv_len, owner);
    break;
  }
  return chunk;
}

}  // namespace behemoth::kernels
