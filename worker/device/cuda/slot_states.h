// What the sampler knows of each slot, on the device: parameters, biases, which tokens occurred.
// Written by the host when a sequence takes a slot, advanced by the sampling kernel.
#pragma once

#include <absl/status/status.h>

#include <cstdint>
#include <vector>

#include "kernels/sampling/sampling.h"
#include "worker/device/backend.h"
#include "worker/device/cuda/memory.h"
#include "worker/schedule/step_plan.h"

struct CUstream_st;

namespace behemoth::worker::cuda {

// On the device, or a staging copy of it in pinned memory. V = vocabulary.
struct SlotArrays {
  kernels::SlotSampling* sampling;  // [slots]
  uint32_t* token_use;              // [slots, V]
  float* bias;                      // [slots, V]
  // What DRY and banned sequences look back at: 4 bytes a slot for each token of the context, V / 8
  // bytes of breakers, 140 KiB of phrases.
  int32_t* history;      // [slots, context]
  int32_t* breaker_end;  // [slots]
  uint32_t* breakers;    // [slots, ceil(V / 32)]
  int32_t* phrases;      // [slots, kPhraseWords]
  uint32_t* repeats;     // [slots, context], of the device alone: 4 more bytes for each token

  static SlotArrays Take(Arena& arena, const RunnerLimits& limits);
};

class SlotStates {
 public:
  // The arrays' memory outlives this. `staging` may be written again when the step that used it
  // has been collected: one for each step that can be in flight.
  SlotStates(const RunnerLimits& limits, const SlotArrays& device, std::vector<SlotArrays> staging);

  // Enqueues the uploads of `bindings`; they passed CheckPlan.
  absl::Status Bind(const std::vector<SlotBinding>& bindings, size_t staging, CUstream_st* stream);
  // top_logprobs of each slot's sequence.
  const std::vector<int32_t>& tops() const { return tops_; }

 private:
  absl::Status BindOne(const SlotBinding& binding, const SlotArrays& from, CUstream_st* stream);
  absl::Status BindHistory(const SlotBinding& binding, const SlotArrays& from, CUstream_st* stream);

  const int32_t vocabulary_;
  const int32_t context_;
  const SlotArrays device_;
  const std::vector<SlotArrays> staging_;
  std::vector<int32_t> tops_;
};

}  // namespace behemoth::worker::cuda
