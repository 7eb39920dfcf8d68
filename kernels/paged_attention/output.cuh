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

}  // namespace behemoth::kernels
