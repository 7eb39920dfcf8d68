// Every metric of the worker as a verb. Names and buckets: spec/operations.md 2. A second family
// carries vLLM's own names, so that endpoint pickers, dashboards and autoscalers work unchanged.
//
// Thread-safe: the metrics are atomics, made at construction, so the engine thread looks up no
// label. No label ever comes from a request. The gateway counts requests end to end; here they are
// seen from the engine, so names that both have begin with behemoth_worker_.
#pragma once

#include <prometheus/registry.h>

#include <memory>
#include <string>

#include "worker/rpc/generate_call.h"
#include "worker/rpc/status_board.h"
#include "worker/schedule/observer.h"

namespace behemoth::worker {

struct ProbeConfig {
  std::string model_name;
  int32_t blocks = 0;
  int32_t tokens_per_block = 0;
  uint64_t weight_bytes = 0, activation_bytes = 0, workspace_bytes = 0, block_bytes = 0;
  int32_t ranks = 1;  // each with a plan of these bytes
  bool vllm_names = true;
};

class Probe : public ScheduleObserver, public DoorObserver {
 public:
  Probe(prometheus::Registry& registry, const ProbeConfig& config);
  ~Probe() override;

  void OnStep(const StepShape& shape, absl::Duration duration) override;
  void OnPrefixLookup(int32_t prompt_tokens, int32_t cached_tokens) override;
  void OnFirstToken(absl::Duration since_arrival) override;
  void OnNextToken(absl::Duration since_last) override;
  void OnPreemption() override;
  void OnNonFinite() override;
  void OnFinish(const FinishEvent& finish, absl::Duration lifetime) override;
  void OnClose(const absl::Status& status) override;

  void OnRefused(const absl::Status& why) override;

  void OnLoad(const LoadSnapshot& load);
  void OnState(WorkerState state);
  void OnLoadProgress(uint64_t done_bytes, uint64_t total_bytes, double bytes_per_second);

 private:
  struct Families;
  std::unique_ptr<Families> families_;
};

}  // namespace behemoth::worker
