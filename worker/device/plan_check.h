// Whether a plan is one that a backend may run: every index within its bounds, checked once on the
// host, before a loop or a kernel follows it.
#pragma once

#include <absl/status/status.h>

#include "worker/runner/model_runner.h"
#include "worker/schedule/step_plan.h"

namespace behemoth::worker {

// INTERNAL naming the step and what is wrong: the engine's bug, never a caller's. Pending tokens
// pass: their ids are the backend's own.
absl::Status CheckPlan(const StepPlan& plan, const RunnerLimits& limits);

}  // namespace behemoth::worker
