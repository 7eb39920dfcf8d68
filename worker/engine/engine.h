// The loop: mailbox -> PlanStep -> runner -> Commit -> publish. One thread owns scheduler,
// sequences, blocks and prefix cache; all others send it values.
//
// Life: constructed (takes mail, does nothing yet) -> Start -> [Drain] -> Stop -> destroyed.
// Thread-safe but for Start and Stop, which belong to the owner.
// The loop beats at every step and, when idle, every kIdleBeat: last_beat() grows old only if the
// thread hangs or has ended.
// A status from the runner is fatal: every stream is closed UNAVAILABLE, everything after it is
// refused, hooks.on_failure is called once, the thread ends.
#pragma once

#include <absl/base/thread_annotations.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/synchronization/mutex.h>
#include <absl/time/time.h>

#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "worker/engine/mailbox.h"
#include "worker/runner/model_runner.h"
#include "worker/schedule/generation.h"
#include "worker/schedule/observer.h"
#include "worker/schedule/scheduler.h"

namespace behemoth::worker {

// Called on the engine thread; must not block.
struct EngineHooks {
  // After the events of a step, or of anything else that changed the load, have been pushed.
  std::function<void(const LoadSnapshot&)> on_publish = [](const LoadSnapshot&) {};
  // The last thing the thread does when the device has failed.
  std::function<void(const absl::Status&)> on_failure = [](const absl::Status&) {};
};

// A scheduler for what a runner can do; what the operator chooses is left at its default.
SchedulerConfig ConfigFor(const RunnerLimits& limits);

class Engine {
 public:
  static constexpr absl::Duration kIdleBeat = absl::Milliseconds(250);

  // `runner` and `observer` outlive the engine. `config` agrees with runner->limits().
  Engine(const SchedulerConfig& config, const MailboxLimits& limits, ModelRunner* runner,
         ScheduleObserver* observer, EngineHooks hooks);
  ~Engine();

  void Start();

  // `request` is valid against the config. OK: its sink hears of it until Close.
  // ALREADY_EXISTS, RESOURCE_EXHAUSTED (the queue is full), UNAVAILABLE (draining, failed).
  absl::StatusOr<RequestSerial> Submit(GenerationRequest request);
  // The caller of that request is gone. No effect if it has ended.
  void Abort(std::string request_id, RequestSerial serial, absl::Status why);
  // Control, effective at the next step border. `done` hears OK, NOT_FOUND or INVALID_ARGUMENT on
  // the engine thread, unless the call returns an error.
  absl::Status Cancel(std::string request_id, ControlDone done);
  absl::Status ForceIds(std::string request_id, int32_t sequence, std::vector<TokenId> ids,
                        ControlDone done);
  absl::Status ExtendMaxTokens(std::string request_id, int32_t additional_tokens, ControlDone done);
  absl::Status Rewind(std::string request_id, worker::Rewind rewind, ControlDone done);

  // A mask has come that an idle engine may be waiting for.
  void Wake() { mailbox_.Wake(); }

  LoadSnapshot load() const;
  absl::Time last_beat() const;

  // Refuses new requests (UNAVAILABLE) and waits for those in flight. False = `deadline` came
  // first.
  bool Drain(absl::Time deadline);
  // Refuses new requests, fails those in flight with UNAVAILABLE, joins the thread. Idempotent.
  void Stop();

 private:
  void Run();
  void Apply(absl::Time now);
  absl::StatusOr<absl::Time> Advance();
  void Publish();
  void Beat(absl::Time now);
  void End(const absl::Status& why);

  const int32_t pipeline_depth_;
  ModelRunner* const runner_;
  const EngineHooks hooks_;
  Mailbox mailbox_;
  std::thread thread_;
  std::atomic<int64_t> last_beat_ns_;

  mutable absl::Mutex load_mutex_;
  LoadSnapshot load_ ABSL_GUARDED_BY(load_mutex_);

  // Engine thread only.
  Scheduler scheduler_;
  int32_t steps_in_flight_ = 0;
  std::vector<Mail> mail_;
  std::vector<std::string> ended_ids_;
};

}  // namespace behemoth::worker
