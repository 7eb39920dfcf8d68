// Runs steps on a backend: StepPlan in, StepResult out. The engine's only view of the model.
//
// Thread: the engine thread alone. Life: made by the composition root from a loaded model, after
// the memory plan; no allocation on the device afterwards.
// Steps run in order. Up to limits().pipeline_depth may be submitted and not yet awaited: with
// depth 2 the engine plans step n+1 while the device runs step n.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "worker/schedule/step_plan.h"

namespace behemoth::worker {

struct RunnerLimits {
  int32_t vocabulary_size = 0;
  int32_t context_tokens = 0;  // longest sequence
  int32_t blocks = 0;
  int32_t tokens_per_block = 0;
  int32_t max_sequences = 0;  // slots, and rows that sample
  int32_t max_step_tokens = 0;
  int32_t pipeline_depth = 1;
  // A small step costs what the next multiple of so many tokens would.
  int32_t token_multiple = 1;
};

class ModelRunner {
 public:
  virtual ~ModelRunner() = default;
  virtual RunnerLimits limits() const = 0;
  // Enqueues. A status here or from Await is fatal to the device: the engine fails all streams and
  // the process ends. One request's trouble is a SampleResult that is not finite, never a status.
  virtual absl::Status Submit(const StepPlan& plan) = 0;
  // Waits for the oldest step that was submitted.
  virtual absl::StatusOr<StepResult> Await() = 0;
  // After a failure: a thread of the runner hangs and cannot be joined, so the process has to end
  // without destroying it.
  virtual bool stuck() const { return false; }
};

}  // namespace behemoth::worker
