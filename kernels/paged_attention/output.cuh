// How the attention kernels write their result.
#pragma once

#include "kernels/paged_attention/paged_attention.h"

namespace behemoth::kernels {

// Two neighbouring columns of one query token's output.
__device__ inline void StorePair(const PagedAttentionArgs& args, size_t token, int column,
                                 uint32_t pair) {
  if (args.out != nullptr) {
    const size_t width = static_cast<size_t>(args.shape.q_heads) * args.shape.kv.head_dim;
    *reinterpret_cast<uint32_t*>(args.out + token * width + column) = pair;
  }
  if (args.out_packed != nullptr) {
    const size_t piece = static_cast<size_t>(column / 8) * args.packed_rows + token;
    *reinterpret_cast<uint32_t*>(args.out_packed + piece * 8 + column % 8) = pair;
  }
}
// Pairs at columns column, column + 8, ... of one query token's output.
template <int kPairs>
__device__ void StorePairs(const PagedAttentionArgs& args, size_t token, int column,
                           const uint32_t (&pairs)[kPairs]) {
  if (args.out != nullptr) {
    const size_t width = static_cast<size_t>(args.shape.q_heads) * args.shape.kv.head_dim;
    bf16* at = args.out + token * width + column;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) *reinterpret_cast<uint32_t*>(at + 8 * i) = pairs[i];
  }
  if (args.out_packed != nullptr) {
    const size_t piece = static_cast<size_t>(column / 8) * args.packed_rows + token;
    bf16* at = args.out_packed + piece * 8 + column % 8;
#pragma unroll
    for (int i = 0; i < kPairs; ++i, at += size_t{8} * args.packed_rows) {
      *reinterpret_cast<uint32_t*>(at) = pairs[i];
    }
  }
}

}  // namespace behemoth::kernels
