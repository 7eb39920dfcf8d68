// What the scheduling side has to tell the metrics. Called on the engine thread; must not block.
#pragma once

#include <absl/status/status.h>
#include <absl/time/time.h>

#include <cstdint>

#include "worker/schedule/generation.h"
#include "worker/schedule/step_plan.h"

namespace behemoth::worker {

struct StepShape {
  int32_t rows = 0;
  int32_t tokens = 0;
  int32_t prompt_tokens = 0;  // of them, in rows that prefill
  int32_t samples = 0;
  DeviceTimes device;
};

struct LoadSnapshot {
  int32_t running_sequences = 0;
  int32_t waiting_requests = 0;
  int64_t waiting_tokens = 0;  // prompt tokens not yet computed of waiting requests
  int32_t free_blocks = 0;     // idle cached ones included
  int32_t blocks = 0;
  uint64_t prefix_digest = 0;
  uint64_t steps = 0;  // committed
};

// Blocks that sequences hold, 0 to 1.
inline double KvUse(const LoadSnapshot& load) {
  return load.blocks == 0 ? 0 : 1 - static_cast<double>(load.free_blocks) / load.blocks;
}

class ScheduleObserver {
 public:
  virtual ~ScheduleObserver() = default;
  virtual void OnStep(const StepShape&, absl::Duration) {}
  virtual void OnPrefixLookup(int32_t /*prompt_tokens*/, int32_t /*cached_tokens*/) {}
  virtual void OnFirstToken(absl::Duration /*since_arrival*/) {}
  virtual void OnNextToken(absl::Duration /*since_last*/) {}
  virtual void OnPreemption() {}
  virtual void OnNonFinite() {}
  // A sequence reached its finish; `lifetime` since the request's arrival.
  virtual void OnFinish(const FinishEvent&, absl::Duration /*lifetime*/) {}
  // A request ended; OK or why not.
  virtual void OnClose(const absl::Status&) {}
};

}  // namespace behemoth::worker
