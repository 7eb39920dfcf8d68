#include "worker/runner/transformer_runner.h"

#include <utility>

namespace behemoth::worker {

TransformerRunner::TransformerRunner(const RunnerLimits& limits, std::unique_ptr<Backend> backend,
                                     std::unique_ptr<Transformer> transformer)
    : limits_(limits), backend_(std::move(backend)), transformer_(std::move(transformer)) {}

absl::Status TransformerRunner::Submit(const StepPlan& plan) {
  if (absl::Status begun = backend_->BeginStep(plan); !begun.ok()) return begun;
  // A plan may hold bindings and copies alone.
  if (!plan.token_ids.empty()) {
    transformer_->Forward(static_cast<int32_t>(plan.token_ids.size()));
  }
  return backend_->EndStep();
}

}  // namespace behemoth::worker
