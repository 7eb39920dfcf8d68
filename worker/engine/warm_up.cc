#include "worker/engine/warm_up.h"

#include <algorithm>
#include <memory>

namespace behemoth::worker {
namespace {

StepPlan PlanOf(const RunnerLimits& limits, StepNumber number, int32_t position, int32_t tokens) {
  const int32_t blocks =
      (position + tokens + limits.tokens_per_block - 1) / limits.tokens_per_block;
  StepPlan plan;
  plan.number = number;
  plan.token_ids.assign(static_cast<size_t>(tokens), 0);
  for (int32_t block = 0; block < blocks; ++block) plan.block_ids.push_back(BlockId{block});
  plan.rows.push_back({.token_count = tokens, .position = position, .block_count = blocks});
  plan.samples.push_back({.row = 0, .slot = SlotId{0}, .position = position + tokens});
  return plan;
}

absl::Status RunOne(ModelRunner& runner, const StepPlan& plan) {
  if (absl::Status submitted = runner.Submit(plan); !submitted.ok()) return submitted;
  return runner.Await().status();
}

}  // namespace

absl::Status WarmUp(ModelRunner& runner) {
  const RunnerLimits limits = runner.limits();
  const int32_t tokens = std::min(limits.max_step_tokens, limits.context_tokens - 1);
  StepPlan prefill = PlanOf(limits, 1, 0, tokens);
  prefill.bindings.push_back({.slot = SlotId{0}, .sampling = std::make_shared<SamplingParams>()});
  if (absl::Status ran = RunOne(runner, prefill); !ran.ok()) return ran;
  return RunOne(runner, PlanOf(limits, 2, tokens, 1));
}

}  // namespace behemoth::worker
