// Who gets the device's memory, as one sum, before a byte of it is taken:
//
//   weights + activations + workspace + blocks * block bytes  <=  usable
//   usable = min(utilization * total, limit), what others hold already counted out
//
// Everything is taken at start, so no request can run out of memory afterwards.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <span>
#include <string>

#include "worker/runner/model_loader.h"

namespace behemoth::worker {

struct MemoryLimits {
  uint64_t total_bytes = 0;      // of the device
  uint64_t available_bytes = 0;  // of them, not held by others
  double utilization = 0.9;      // of total_bytes, for this process
  uint64_t limit_bytes = 0;      // 0 = none
  uint64_t kv_bytes = 0;         // 0 = all that is left
};

struct MemoryPlan {
  ModelNeeds needs;
  int32_t context_tokens = 0;
  uint64_t usable_bytes = 0;
  int32_t blocks = 0;

  uint64_t planned_bytes() const { return needs.fixed_bytes() + needs.block_bytes * blocks; }
  // The sum and what it buys, for the log. Of several ranks, each one's.
  std::string Describe() const;
};

// RESOURCE_EXHAUSTED with the numbers if the weights do not fit, or no context of `context_tokens`
// fits beside them. `fitting_tokens`, if not null, then gets the longest context that would
// (0 = none).
// At most `max_sequences` full contexts are bought: nobody could fill more.
absl::StatusOr<MemoryPlan> PlanMemory(const ModelNeeds& needs, int32_t context_tokens,
                                      int32_t max_sequences, const MemoryLimits& limits,
                                      int32_t* fitting_tokens);

// The plan of the rank that gets the fewest blocks, which all have; an error names its rank.
// `ranks`: of each one's device. fitting_tokens: of the one that fits least.
absl::StatusOr<MemoryPlan> PlanMemory(const ModelNeeds& needs, int32_t context_tokens,
                                      int32_t max_sequences, std::span<const MemoryLimits> ranks,
                                      int32_t* fitting_tokens);

}  // namespace behemoth::worker
