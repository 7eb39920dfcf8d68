// A StepPlan unrolled per token, for the CPU's loops: what is uploaded on a device.
#pragma once

#include <absl/status/status.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "worker/device/backend.h"
#include "worker/device/cpu/paged_cache.h"
#include "worker/sampling/sampler.h"

namespace behemoth::worker::cpu {

// One row of logits: a sample (pass 0), or a prompt token's successor to score (later passes).
struct LogitRow {
  int32_t token = 0;   // of the step
  int32_t result = 0;  // place in StepResult::samples, or in prompt_logprobs[prompt]
  SlotId slot{};
  int32_t position = 0;
  std::shared_ptr<const TokenMask> mask;
  int32_t prompt = 0;
  TokenId successor = 0;
  int32_t top_logprobs = 0;
};

struct StepInputs {
  std::vector<TokenId> token_ids;  // pending ones resolved
  std::vector<BlockId> block_ids;
  std::vector<TokenPlace> places;     // [tokens]
  std::vector<float> cosines, sines;  // [tokens, head_dim / 2]
  std::vector<std::vector<LogitRow>> passes;
  StepResult result;  // sized; filled by sampling

  // `plan` has passed CheckPlan. INTERNAL if a pending token is none.
  absl::Status Load(const StepPlan& plan, const BackendSpec& spec,
                    const std::vector<SamplerState>& slots);

 private:
  absl::Status LoadRow(const StepPlan& plan, const StepRow& row, const BackendSpec& spec,
                       const std::vector<SamplerState>& slots);
  void AddPromptScores(const StepPlan& plan, const StepRow& row, int32_t max_rows,
                       const SamplerState& slot);
  void Rotate(int32_t position, const std::vector<float>& inverse_frequencies);
};

}  // namespace behemoth::worker::cpu
