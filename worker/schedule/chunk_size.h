// How many prompt tokens a step may carry while others decode, so that a step with them takes no
// longer than the inter-token target.
//
// A device's time grows in steps, not in a line: a GEMM computes whole windows of rows (64, 80, 96,
// 128 on an H100), and the next window can cost half as much again as the one before. So time is
// learned for each number of windows ("grains") that has been seen, and beside it what attention
// adds with the context:
//
//   step time = table[grains of all tokens] + attention * max(prompt tokens, 128) * context
//
// A short chunk does not fill the device: its attention takes as long as a longer one's.
//
// Both as moving averages, from steps in which somebody decodes. A number of grains that was never
// seen is guessed from its neighbours, with caution above the highest one; one that was too slow is
// tried again after a long while, as its time may have been an accident's.
// Engine thread only. Time comes in as measured durations.
#pragma once

#include <absl/time/time.h>

#include <cstdint>
#include <vector>

namespace behemoth::worker {

class ChunkSize {
 public:
  // Prefill always gets on: with this many tokens a step an 8,192-token prompt is in after 512
  // steps, even if the target cannot be kept.
  static constexpr int32_t kSmallest = 16;
  static constexpr int32_t kSmallestGrain = 16;  // tokens
  static constexpr int32_t kFirst = 64;          // before anything is known
  // Weight of the newest measurement: half of the memory is the last two.
  static constexpr double kGain = 0.3;
  // Steps after which a number of grains that is avoided is thought 1 % faster.
  static constexpr int32_t kForgetAfter = 256;

  struct Step {
    int32_t decodes = 0;        // tokens of those who decode
    int32_t prompt_tokens = 0;  // of chunks
    int64_t attended = 0;       // the sum of Attended() over the chunks
  };
  // What attention is thought to cost a chunk of `tokens` that begins at `context`.
  static int64_t Attended(int32_t tokens, int32_t context);

  // `multiple`: the device's window, in tokens of a step. Zero `target`: no limit but `max_tokens`.
  ChunkSize(int32_t max_tokens, int32_t multiple, absl::Duration target);

  // Prompt tokens for a step beside `decodes` > 0 others, for a chunk that begins at `context`.
  int32_t Tokens(int32_t decodes, int32_t context) const;
  void Observe(const Step& step, absl::Duration duration);

 private:
  int32_t Grains(int32_t tokens) const { return (tokens + grain_ - 1) / grain_; }
  // Seconds of a step of so many grains without attention; 0 = nothing is known.
  double Guess(int32_t grains) const;
  void Forget(int32_t seen);

  const int32_t max_tokens_;
  const int32_t multiple_;
  const int32_t grain_;  // tokens
  const double target_s_;
  std::vector<double> table_s_;  // by grains; 0 = not seen
  double attention_s_ = 0;       // for 2^18 of Attended()
  int32_t steps_ = 0;            // since the last forgetting
};

}  // namespace behemoth::worker
