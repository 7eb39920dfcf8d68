// How many prompt tokens a step may carry while others decode, so that a step with them takes no
// longer than the inter-token target.
//
// Model: step time = base + slope * prompt tokens. `base` is learned from steps that only decode,
// `slope` from the others, both as moving averages. The answer is (target - base) / slope.
// Engine thread only. Time comes in as measured durations.
#pragma once

#include <absl/time/time.h>

#include <cstdint>

namespace behemoth::worker {

class ChunkSize {
 public:
  // Prefill always gets on: with this many tokens a step an 8,192-token prompt is in after 256
  // steps, even if the target cannot be kept.
  static constexpr int32_t kSmallest = 32;
  // Weight of the newest measurement: half of the memory is the last three steps.
  static constexpr double kGain = 0.2;

  // Zero `target`: no limit but `max_tokens`.
  ChunkSize(int32_t max_tokens, absl::Duration target);

  // Prompt tokens for a step in which somebody decodes.
  int32_t tokens() const;
  void Observe(int32_t prompt_tokens, absl::Duration step);

 private:
  const int32_t max_tokens_;
  const double target_s_;
  double base_s_ = 0;
  double slope_s_ = 0;  // per prompt token; 0 = not measured yet
};

}  // namespace behemoth::worker
