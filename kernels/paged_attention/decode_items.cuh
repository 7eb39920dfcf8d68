// The items of decode attention, one chunk of one KV head of one row each, and how a block walks
// over its share of them.
#pragma once

#include "kernels/paged_attention/paged_attention.h"

namespace behemoth::kernels {

struct DecodeParams {
  PagedAttentionArgs args;
  DecodeAttentionConfig config;
  int head_tiles;  // per KV head
  int units;       // kv_heads * head_tiles
  int slot_heads;  // heads a partial has room for
};

// One chunk of one KV head (and one tile of its query heads) of one row.
struct DecodeItem {
  int row, chunk, chunks, kv_head, head_tile;
  int begin, end, kv_len;  // tokens [begin, end) of kv_len
};

__device__ inline int RowLength(const PagedAttentionArgs& args, int row) {
  return min(max(args.kv_len[row], 0), args.block_table_stride * kTokensPerBlock);
}

// Walks the flattened list of items, ordered by (row, chunk, unit), in ascending steps. The list
// exists only as the prefix sums of 32 rows at a time in a warp's registers.
class WorkCursor {
 public:
  __device__ explicit WorkCursor(const DecodeParams& params) : p_(params) { LoadRows(); }

  // All lanes of the warp. False: no item `index` (or later) exists.
  __device__ bool Find(int index, DecodeItem* item) {
    int group_items = __shfl_sync(~0u, inclusive_, 31);
    while (index - base_ >= group_items) {
      base_ += group_items;
      first_row_ += 32;
      if (first_row_ >= p_.args.rows) return false;
      LoadRows();
      group_items = __shfl_sync(~0u, inclusive_, 31);
    }
    const int at = index - base_;
    const int lane = __ffs(__ballot_sync(~0u, inclusive_ > at)) - 1;
    const int inclusive = __shfl_sync(~0u, inclusive_, lane);
    item->kv_len = __shfl_sync(~0u, kv_len_, lane);
    item->chunks = __shfl_sync(~0u, chunks_, lane);
    const int local = at - (inclusive - item->chunks * p_.units);
    item->row = first_row_ + lane;
    item->chunk = local / p_.units;
    const int unit = local % p_.units;
    item->kv_head = unit / p_.head_tiles;
    item->head_tile = unit % p_.head_tiles;
    const int chunk_tokens = DecodeChunkTokens(item->kv_len, p_.config.chunks_per_row);
    item->begin = item->chunk * chunk_tokens;
    item->end = min(item->kv_len, item->begin + chunk_tokens);
    return true;
  }

 private:
  __device__ void LoadRows() {
    const int row = first_row_ + static_cast<int>(threadIdx.x & 31);
    kv_len_ = 0;
    if (row < p_.args.rows) {
      kv_len_ = RowLength(p_.args, row);
    }
    const int chunk_tokens = DecodeChunkTokens(kv_len_, p_.config.chunks_per_row);
    chunks_ = (kv_len_ + chunk_tokens - 1) / chunk_tokens;
    inclusive_ = chunks_ * p_.units;
    for (int distance = 1; distance < 32; distance *= 2) {
      const int below = __shfl_up_sync(~0u, inclusive_, distance);
      if (static_cast<int>(threadIdx.x & 31) >= distance) inclusive_ += below;
    }
  }

  const DecodeParams& p_;
  int first_row_ = 0, base_ = 0;     // this group of 32 rows; items before it
  int kv_len_, chunks_, inclusive_;  // of this lane's row
};

}  // namespace behemoth::kernels
