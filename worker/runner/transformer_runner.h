// The runner of any backend: a step is the forward pass over what the plan says.
#pragma once

#include <memory>

#include "worker/device/backend.h"
#include "worker/model/transformer.h"
#include "worker/runner/model_runner.h"

namespace behemoth::worker {

class TransformerRunner : public ModelRunner {
 public:
  TransformerRunner(const RunnerLimits& limits, std::unique_ptr<Backend> backend,
                    std::unique_ptr<Transformer> transformer);
  RunnerLimits limits() const override { return limits_; }
  absl::Status Submit(const StepPlan& plan) override;
  absl::StatusOr<StepResult> Await() override { return backend_->Collect(); }

 private:
  const RunnerLimits limits_;
  const std::unique_ptr<Backend> backend_;  // outlives the transformer
  const std::unique_ptr<Transformer> transformer_;
};

}  // namespace behemoth::worker
