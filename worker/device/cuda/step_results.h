// What a step brings back: from the device's arrays, through pinned memory, to a StepResult.
#pragma once

#include <absl/status/status.h>

#include "kernels/sampling/sampling.h"
#include "worker/device/cuda/memory.h"
#include "worker/device/cuda/step_inputs.h"
#include "worker/schedule/step_plan.h"

struct CUstream_st;

namespace behemoth::worker::cuda {

// On the device, or in pinned memory. Samples and scores lie in one range each.
struct ResultArrays {
  kernels::SampleOutput* samples;  // [S]
  kernels::TopToken* sample_tops;  // [S, kMaxTopLogprobs]
  kernels::SampleOutput* scores;   // [T]
  kernels::TopToken* score_tops;   // [T, kMaxTopLogprobs]

  static ResultArrays Take(Arena& arena, const RunnerLimits& limits);
};

// Enqueues the copies of what `shape` has: the step's one read-back.
absl::Status ReadBack(const ResultArrays& device, const ResultArrays& host, const StepShape& shape,
                      CUstream_st* stream);

// `host` as ReadBack left it.
StepResult ResultOf(const StepReceipt& receipt, const ResultArrays& host);

}  // namespace behemoth::worker::cuda
