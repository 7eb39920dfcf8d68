#include "worker/schedule/chunk_size.h"

#include <algorithm>

namespace behemoth::worker {

ChunkSize::ChunkSize(int32_t max_tokens, absl::Duration target)
    : max_tokens_(max_tokens), target_s_(absl::ToDoubleSeconds(target)) {}

int32_t ChunkSize::tokens() const {
  if (target_s_ <= 0) return max_tokens_;
  const int32_t smallest = std::min(kSmallest, max_tokens_);
  if (slope_s_ <= 0) return std::min(4 * kSmallest, max_tokens_);
  const double fitting = (target_s_ - base_s_) / slope_s_;
  return static_cast<int32_t>(std::clamp<double>(fitting, smallest, max_tokens_));
}

void ChunkSize::Observe(int32_t prompt_tokens, absl::Duration step) {
  const double step_s = absl::ToDoubleSeconds(step);
  if (step_s <= 0) return;
  double& average = prompt_tokens == 0 ? base_s_ : slope_s_;
  // A chunk that took no longer than a pure decode step still costs something.
  const double measured =
      prompt_tokens == 0 ? step_s : std::max(step_s - base_s_, 0.01 * step_s) / prompt_tokens;
  average = average == 0 ? measured : average + kGain * (measured - average);
}

}  // namespace behemoth::worker
