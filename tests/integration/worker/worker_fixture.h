// The worker's door and engine over a fake runner, behind a real gRPC server in this process.
#pragma once

#include <absl/synchronization/mutex.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "behemoth/worker/v1/worker.grpc.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "proto/support/grpc_server.h"
#include "proto/support/health.h"
#include "tests/unit/worker/schedule/fake_runner.h"
#include "worker/engine/engine.h"
#include "worker/rpc/engine_watchdog.h"
#include "worker/rpc/load_feed.h"
#include "worker/rpc/status_board.h"
#include "worker/rpc/stream_writer.h"
#include "worker/rpc/worker_service.h"

namespace behemoth::worker {

// A FakeRunner whose device can be held (Await hangs until it is let go) and broken.
class GatedRunner : public ModelRunner {
 public:
  explicit GatedRunner(const RunnerLimits& limits);
  RunnerLimits limits() const override { return limits_; }
  absl::Status Submit(const StepPlan& plan) override;
  absl::StatusOr<StepResult> Await() override;

  void Hold(bool held);
  void AwaitHeld();  // until the engine thread hangs in Await
  void Step();       // lets one step go, if the engine thread hangs
  void Break();
  const std::string& error() const { return fake_.error(); }

 private:
  const RunnerLimits limits_;
  FakeRunner fake_;
  std::vector<StepResult> results_;
  absl::Mutex mutex_;
  bool held_ = false, waiting_ = false, broken_ = false;
  int allowed_ = 0;  // steps, while held
};

struct Outcome {
  std::vector<std::vector<TokenId>> tokens;  // by sequence
  std::vector<v1::Finish> finishes;
  std::vector<v1::Progress> progress;
  grpc::Status status;
};

class WorkerFixture : public testing::Test {
 protected:
  static constexpr int32_t kVocabulary = 2000;
  static constexpr int32_t kContext = 1024;
  static constexpr absl::Duration kHeartbeat = absl::Milliseconds(400);

  WorkerFixture();
  ~WorkerFixture() override;

  void EnterReady();
  v1::GenerateRequest Request(const std::string& id, int32_t max_tokens = 8) const;
  // Reads to the end.
  Outcome Generate(const v1::GenerateRequest& request);
  static void ReadAll(grpc::ClientReader<v1::GenerateResponse>& reader, Outcome* outcome);
  grpc::Status Control(const v1::ControlRequest& request);
  grpc::health::v1::HealthCheckResponse::ServingStatus AwaitHealth(
      grpc::health::v1::HealthCheckResponse::ServingStatus wanted);
  // Steps go on, each as slow as a call on the client's connection, while `goes_on` says so.
  void StepWhile(const std::function<bool()>& goes_on);
  // Until the engine publishes a load of which it is true.
  void AwaitLoad(const std::function<bool(const LoadSnapshot&)>& holds);
  void AwaitRefusals(size_t count);
  std::vector<TokenId> Alone(const v1::GenerateRequest& request, int32_t sequence = 0) const;

  const RunnerLimits limits_{.vocabulary_size = kVocabulary,
                             .context_tokens = kContext,
                             .blocks = 2048,
                             .tokens_per_block = 16,
                             .max_sequences = 16,
                             .max_step_tokens = 64};
  const MailboxLimits queue_{.queue_requests = 2};

  absl::Mutex mutex_;
  LoadSnapshot load_;
  std::vector<absl::Status> failures_, refusals_;

  GatedRunner runner_;
  StatusBoard board_;
  support::Health health_;
  StreamWriter writer_;
  ScheduleObserver schedule_observer_;
  std::unique_ptr<DoorObserver> door_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<LoadFeed> feed_;
  std::unique_ptr<EngineWatchdog> watchdog_;
  std::unique_ptr<WorkerService> service_;
  std::unique_ptr<support::GrpcServer> server_;
  std::unique_ptr<v1::WorkerService::Stub> stub_;
  std::unique_ptr<grpc::health::v1::Health::Stub> health_stub_;
};

}  // namespace behemoth::worker
