#include "worker/engine/warm_up.h"

#include <algorithm>
#include <memory>

namespace behemoth::worker {
namespace {

void AddRow(const RunnerLimits& limits, int32_t slot, int32_t position, int32_t tokens,
            StepPlan& plan) {
  const int32_t blocks =
      (position + tokens + limits.tokens_per_block - 1) / limits.tokens_per_block;
  const auto row = static_cast<int32_t>(plan.rows.size());
  plan.rows.push_back({.first_token = static_cast<int32_t>(plan.token_ids.size()),
                       .token_count = tokens,
                       .position = position,
                       .first_block = static_cast<int32_t>(plan.block_ids.size()),
                       .block_count = blocks,
                       .slot = SlotId{slot},
                       .output_count = position == 0 ? 0 : tokens});
  plan.token_ids.insert(plan.token_ids.end(), static_cast<size_t>(tokens), 0);
  for (int32_t block = 0; block < blocks; ++block) plan.block_ids.push_back(BlockId{block});
  plan.samples.push_back({.row = row, .slot = SlotId{slot}, .position = position + tokens});
}

absl::Status RunOne(ModelRunner& runner, const StepPlan& plan) {
  if (absl::Status submitted = runner.Submit(plan); !submitted.ok()) return submitted;
  return runner.Await().status();
}

}  // namespace

absl::Status WarmUp(ModelRunner& runner) {
  const RunnerLimits limits = runner.limits();
  StepPlan plan{.number = 1};
  const auto sampling = std::make_shared<SamplingParams>();
  for (int32_t slot = 0; slot < limits.max_sequences; ++slot) {
    plan.bindings.push_back({.slot = SlotId{slot}, .sampling = sampling});
  }
  AddRow(limits, 0, 0, std::min(limits.max_step_tokens, limits.context_tokens - 1), plan);
  if (absl::Status ran = RunOne(runner, plan); !ran.ok()) return ran;
  StepNumber number = plan.number;
  for (int32_t rows = 1;; rows = std::min(2 * rows, limits.max_sequences)) {
    StepPlan decode{.number = ++number};
    for (int32_t slot = 0; slot < rows; ++slot) AddRow(limits, slot, 1, 1, decode);
    if (absl::Status ran = RunOne(runner, decode); !ran.ok()) return ran;
    // A step that is planned ahead of its masks runs otherwise.
    if (limits.pipeline_depth > 1) {
      decode.number = ++number;
      decode.samples.front().late_mask = true;
      decode.late_masks = std::make_shared<MaskGate>();
      decode.late_masks->Open({nullptr});
      if (absl::Status ran = RunOne(runner, decode); !ran.ok()) return ran;
    }
    if (rows == limits.max_sequences) return absl::OkStatus();
  }
}

}  // namespace behemoth::worker
