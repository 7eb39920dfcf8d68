// The two implementations behind LaunchPrefillAttention, which has checked the arguments, and the
// shared memory that SelectPrefillAttention plans for them.
#pragma once

#include "kernels/paged_attention/paged_attention.h"

namespace behemoth::kernels {

// 128 packed query rows, two stages of K and V in bf16, barriers; fp8 tiles are converted from
// their own two stages into one bf16 pair, which takes the same bytes.
constexpr int PrefillMmaBytes(const KvShape& shape) {
  return 128 * shape.head_dim * 2 + 2 * 2 * kTokensPerBlock * shape.head_dim * 2 + 128;
}
// Slots of 128 keys: at head_dim 128 five of 32 KB beside 64 KB of Q, or three and four places of
// 16 KB where fp8 lands, fill the 227 KB of a Hopper block.
constexpr int PrefillWgmmaStages(KvType type) { return type == KvType::kBf16 ? 5 : 3; }
inline constexpr int kPrefillLandings = 4;
constexpr int PrefillWgmmaBytes(const KvShape& shape) {
  const int row_bytes = shape.head_dim * 2;
  const int landing = shape.type == KvType::kBf16 ? 0 : 2 * kPrefillLandings * KvTileBytes(shape);
  return (2 * 128 + PrefillWgmmaStages(shape.type) * 128) * row_bytes + landing + 256;
}

// Warp-level products and a copy a warp can make on any device from sm_80.
KernelError LaunchPrefillMma(const PrefillAttentionConfig& config, const PagedAttentionArgs& args,
                             const LaunchContext& context);
// Warpgroup products: sm_90a.
KernelError LaunchPrefillWgmma(const PrefillAttentionConfig& config, const PagedAttentionArgs& args,
                               const LaunchContext& context);

}  // namespace behemoth::kernels
