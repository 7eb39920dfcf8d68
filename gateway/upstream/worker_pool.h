// Which workers there are, which of them can serve, and which one takes a request.
//
// Thread-safe. State is kept under one mutex that is never held across a call into a worker client.
// A worker is usable when its engine is READY, it was heard of within `silence`, and it is not
// ejected, and speaks this gateway's ids. Least load wins: what this gateway has in flight there
// plus what others queue there. A failed worker is ejected for `ejection`, then tried again; its
// watch reconnects every second. Retry: on another worker, only while no token or finish has
// reached the observer, on UNAVAILABLE and RESOURCE_EXHAUSTED, each worker at most once. A request
// that two workers in a row were lost with is quarantined (quarantine.h): INTERNAL, code_name
// request_quarantined, without asking a worker.
#pragma once

#include <absl/container/flat_hash_set.h>
#include <absl/functional/any_invocable.h>
#include <absl/status/status.h>
#include <absl/time/time.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gateway/loop/loop.h"
#include "gateway/upstream/worker_client.h"

namespace behemoth::gateway {

struct WorkerPoolConfig {
  absl::Duration ejection = absl::Seconds(2);
  absl::Duration silence = absl::Seconds(3);  // six missed load reports
  absl::Duration reconnect = absl::Milliseconds(500);
};

struct ServedModel {
  std::string name;
  std::string root;  // the first name of the worker that serves it
  uint32_t context_tokens = 0;
  std::string weights_fingerprint, build;
  std::vector<uint32_t> eos_ids;
  GenerationDefaults defaults;
};

// What /health, /load and /v1/models show.
struct PoolView {
  int workers = 0, usable = 0;
  WorkerState best_state = WorkerState::kUnknown;  // of the workers not usable, if none is
  bool other_tokenizer = false;  // some worker's own folder holds another tokenizer than ours
  double load_percent = 0;
  std::optional<absl::Duration> eta;
  uint32_t running_sequences = 0, waiting_requests = 0;
  double kv_use = 0;                // mean over usable workers
  std::vector<ServedModel> models;  // of all workers ever heard of; no name twice
};

class WorkerPool {
 public:
  virtual ~WorkerPool() = default;
  virtual PoolView View() const = 0;
  // NOT_FOUND is the caller's business (View().models). UNAVAILABLE arrives by OnDone.
  virtual std::unique_ptr<GenerateCall> Generate(const std::string& model, GenerateSpec spec,
                                                 GenerateObserver* observer, Loop& loop) = 0;
};

// Makes the client of one address; a test's are scripted.
using WorkerClientFactory =
    std::function<absl::StatusOr<std::unique_ptr<WorkerClient>>(const std::string& address)>;

class LeastLoadPool final : public WorkerPool {
 public:
  // `loop` runs the watches and outlives the pool; it is stopped before the pool is destroyed.
  LeastLoadPool(const WorkerPoolConfig& config, WorkerClientFactory factory, Loop& loop);
  ~LeastLoadPool() override;

  // The addresses there are now: new ones are watched, gone ones get no new request and leave when
  // their last one has ended. Thread-safe.
  void SetAddresses(std::vector<std::string> addresses);

  // What the tokenizer service read. A worker whose own folder holds another tokenizer file would
  // take our ids for other words: it is not usable, and the log says so. Thread-safe.
  void SetTokenizerFingerprint(std::string fingerprint);

  PoolView View() const override;
  std::unique_ptr<GenerateCall> Generate(const std::string& model, GenerateSpec spec,
                                         GenerateObserver* observer, Loop& loop) override;

  class Member;
  class Members;

 private:
  std::shared_ptr<Members> members_;
};

}  // namespace behemoth::gateway
