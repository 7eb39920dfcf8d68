#include "kernels/w4a16_gemm/random_source.h"

#include <cmath>

namespace behemoth::kernels {

float RandomScaleOf(int k) { return 1.0f / (4.6f * std::sqrt(static_cast<float>(k))); }

KernelError FillRandomInt4(const RandomInt4& target) {
  if (target.n < 1 || target.group_columns < 8 || target.group_columns % 8 != 0 || target.k < 1 ||
      target.k % target.group_columns != 0) {
    return {kInvalidArgument, "FillRandomInt4: groups of group_columns do not tile k"};
  }
  const int64_t words = int64_t{target.n} * (target.k / 8);
  const int64_t scales = int64_t{target.n} * (target.k / target.group_columns);
  for (int64_t i = 0; i < words; ++i) {
    target.weight[i] = static_cast<uint32_t>(SplitMix64(target.seed, static_cast<uint64_t>(i)));
  }
  const float scale = RandomScaleOf(target.k);
  for (int64_t i = 0; i < scales; ++i) {
    target.scale[i] = RandomScale(scale, SplitMix64(target.seed, static_cast<uint64_t>(words + i)));
  }
  return {};
}

}  // namespace behemoth::kernels
