// The composition root: builds the parts, in the order in which they depend on each other, and
// takes them down in the reverse one. Only here concrete classes meet.
//
// Life: Start (gRPC and metrics serve, state loading) -> a thread loads, warms up and opens the
// door -> Shutdown -> destroyed. See README.md.
#pragma once

#include <absl/status/statusor.h>
#include <absl/time/time.h>
#include <prometheus/registry.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "proto/support/grpc_server.h"
#include "proto/support/health.h"
#include "proto/support/metrics_server.h"
#include "worker/config.h"
#include "worker/engine/engine.h"
#include "worker/memory_budget.h"
#include "worker/probe.h"
#include "worker/ranks.h"
#include "worker/rpc/engine_watchdog.h"
#include "worker/rpc/load_feed.h"
#include "worker/rpc/status_board.h"
#include "worker/rpc/stream_writer.h"
#include "worker/rpc/worker_service.h"
#include "worker/runner/model_loader.h"

namespace behemoth::worker {

class Worker {
 public:
  // Opens the model, plans the memory, serves; loading goes on in the background and ends with a
  // "ready" line, or with RequestShutdown. `config` is complete.
  static absl::StatusOr<std::unique_ptr<Worker>> Start(const Config& config);
  ~Worker();

  // Readiness off, streams in flight finish or are failed after the drain timeout, everything
  // stops. False: the process has to end without destroying this, because a thread cannot be
  // joined (the model is still loading, or the engine or a rank hangs).
  bool Shutdown();

  // The device has failed, or the model could not be loaded.
  bool failed() const { return board_->state() == WorkerState::kFailed; }

 private:
  Worker(const Config& config, Ranks ranks, std::unique_ptr<OpenedModel> model,
         const MemoryPlan& plan, std::string tokenizer_fingerprint);

  absl::Status Serve();
  absl::Status Load();
  void LoadInBackground();
  v1::WatchLoadResponse Snapshot() const;
  SchedulerConfig ScheduleFor(const RunnerLimits& limits) const;

  const Config config_;
  const Ranks ranks_;  // outlives the model and the runner
  const MemoryPlan plan_;
  const MailboxLimits queue_;
  std::unique_ptr<OpenedModel> model_;
  std::shared_ptr<prometheus::Registry> registry_;
  std::unique_ptr<Probe> probe_;
  std::unique_ptr<StatusBoard> board_;
  support::Health health_;
  StreamWriter writer_;
  std::unique_ptr<ModelRunner> runner_;
  std::unique_ptr<FormCompiler> forms_;
  std::unique_ptr<Engine> engine_;
  std::atomic<Engine*> running_engine_ = nullptr;  // set when engine_ is, for other threads
  std::unique_ptr<LoadFeed> feed_;
  std::unique_ptr<EngineWatchdog> watchdog_;
  std::unique_ptr<WorkerService> service_;
  std::unique_ptr<support::MetricsServer> metrics_;
  std::unique_ptr<support::GrpcServer> server_, health_port_;
  std::atomic<bool> loading_ = true;
  std::thread loader_;
};

}  // namespace behemoth::worker
