// What the sampler knows of each slot, on the device: parameters, biases, which tokens occurred.
// Written by the host when a sequence takes a slot, advanced by the sampling kernel.
#pragma once

#include <absl/status/status.h>

#include <cstdint>
#include <vector>

#include "kernels/sampling/sampling.h"
#include "worker/device/cuda/memory.h"
#include "worker/schedule/step_plan.h"

struct CUstream_st;

namespace behemoth::worker::cuda {

// On the device, or a staging copy of it in pinned memory. V = vocabulary.
struct SlotArrays {
  kernels::SlotSampling* sampling;  // [slots]
  uint32_t* token_use;              // [slots, V]
  float* bias;                      // [slots, V]

  static SlotArrays Take(Arena& arena, int32_t slots, int32_t vocabulary);
};

class SlotStates {
 public:
  // The arrays' memory outlives this. `staging` may be written again when the step that used it
  // has been collected: one for each step that can be in flight.
  SlotStates(int32_t slots, int32_t vocabulary, const SlotArrays& device,
             std::vector<SlotArrays> staging);

  // Enqueues the uploads of `bindings`; they passed CheckPlan.
  absl::Status Bind(const std::vector<SlotBinding>& bindings, size_t staging, CUstream_st* stream);
  // top_logprobs of each slot's sequence.
  const std::vector<int32_t>& tops() const { return tops_; }

 private:
  absl::Status BindOne(const SlotBinding& binding, const SlotArrays& from, CUstream_st* stream);

  const int32_t vocabulary_;
  const SlotArrays device_;
  const std::vector<SlotArrays> staging_;
  std::vector<int32_t> tops_;
};

// The device's form of a binding; pure, for tests.
kernels::SlotSampling SamplingOf(const SlotBinding& binding);
void FillBias(const SamplingParams& params, int32_t vocabulary, float* line);
void FillTokenUse(const SlotBinding& binding, int32_t vocabulary, uint32_t* line);

}  // namespace behemoth::worker::cuda
