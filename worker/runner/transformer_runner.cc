#include "worker/runner/transformer_runner.h"

#include <utility>

namespace behemoth::worker {

TransformerRunner::TransformerRunner(const RunnerLimits& limits, std::unique_ptr<Backend> backend,
                                     std::unique_ptr<Transformer> transformer)
    : limits_(limits), backend_(std::move(backend)), transformer_(std::move(transformer)) {}

absl::Status TransformerRunner::Submit(const StepPlan& plan) {
  return backend_->RunStep(plan, [this](int32_t tokens) { transformer_->Forward(tokens); });
}

}  // namespace behemoth::worker
