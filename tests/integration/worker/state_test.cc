#include <absl/time/clock.h>

#include <thread>

#include "tests/integration/worker/worker_fixture.h"

namespace behemoth::worker {
namespace {

using grpc::health::v1::HealthCheckResponse;
using testing::HasSubstr;
using testing::SizeIs;

class StateTest : public WorkerFixture {
 protected:
  v1::GetStatusResponse GetStatus() {
    grpc::ClientContext context;
    v1::GetStatusResponse response;
    EXPECT_TRUE(stub_->GetStatus(&context, {}, &response).ok());
    return response;
  }

  // A watcher that hears of changes only: its interval is the longest.
  std::unique_ptr<grpc::ClientReader<v1::WatchLoadResponse>> Watch(grpc::ClientContext* context) {
    v1::WatchLoadRequest request;
    request.mutable_interval()->set_seconds(60);
    return stub_->WatchLoad(context, request);
  }
};

TEST_F(StateTest, WhileLoadingStatusAnswersAndGenerateIsUnavailable) {
  const absl::Time began = absl::Now();
  board_.SetLoadProgress(0, 1000, began);
  board_.SetLoadProgress(250, 1000, began + absl::Seconds(2));
  const v1::GetStatusResponse status = GetStatus();
  EXPECT_EQ(status.state(), v1::WORKER_STATE_LOADING);
  EXPECT_DOUBLE_EQ(status.load().percent(), 25);
  EXPECT_DOUBLE_EQ(status.load().bytes_per_second(), 125);
  EXPECT_EQ(status.load().eta().seconds(), 6);
  const Outcome outcome = Generate(Request("early"));
  EXPECT_EQ(outcome.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(outcome.status.error_message(), HasSubstr("loading"));
  EXPECT_EQ(AwaitHealth(HealthCheckResponse::NOT_SERVING), HealthCheckResponse::NOT_SERVING);
  EXPECT_THAT(refusals_, SizeIs(1));
}

TEST_F(StateTest, WatchLoadHearsOfEveryChangeOfState) {
  grpc::ClientContext context;
  const auto reader = Watch(&context);
  v1::WatchLoadResponse response;
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.state(), v1::WORKER_STATE_LOADING);
  EnterReady();
  while (response.state() != v1::WORKER_STATE_READY) ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.free_blocks(), 2048u);
  board_.Enter(WorkerState::kDraining);
  while (response.state() != v1::WORKER_STATE_DRAINING) ASSERT_TRUE(reader->Read(&response));
  feed_->End();
  while (reader->Read(&response)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(StateTest, AnIntervalOutOfRangeIsRefused) {
  v1::WatchLoadRequest request;
  request.mutable_interval()->set_nanos(1);
  grpc::ClientContext context;
  const auto reader = stub_->WatchLoad(&context, request);
  v1::WatchLoadResponse response;
  EXPECT_FALSE(reader->Read(&response));
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), testing::StartsWith("interval"));
}

TEST_F(StateTest, AnEngineThatHangsIsNotServingUntilItBeatsAgain) {
  EnterReady();
  EXPECT_EQ(AwaitHealth(HealthCheckResponse::SERVING), HealthCheckResponse::SERVING);
  runner_.Hold(true);
  std::thread caller([this] { EXPECT_TRUE(Generate(Request("stuck")).status.ok()); });
  runner_.AwaitHeld();
  EXPECT_EQ(AwaitHealth(HealthCheckResponse::NOT_SERVING), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(GetStatus().state(), v1::WORKER_STATE_FAILED);
  runner_.Hold(false);
  caller.join();
  EXPECT_EQ(AwaitHealth(HealthCheckResponse::SERVING), HealthCheckResponse::SERVING);
  EXPECT_EQ(GetStatus().state(), v1::WORKER_STATE_READY);
}

TEST_F(StateTest, ABrokenDeviceFailsEveryStreamAndTheState) {
  EnterReady();
  runner_.Hold(true);
  grpc::ClientContext contexts[2];
  const auto running = stub_->Generate(&contexts[0], Request("a", 900));
  runner_.AwaitHeld();
  const auto waiting = stub_->Generate(&contexts[1], Request("b", 900));
  runner_.Break();
  Outcome outcomes[2];
  ReadAll(*running, &outcomes[0]);
  ReadAll(*waiting, &outcomes[1]);
  for (const Outcome& outcome : outcomes) {
    EXPECT_EQ(outcome.status.error_code(), grpc::StatusCode::UNAVAILABLE);
    EXPECT_TRUE(outcome.finishes.empty());
  }
  EXPECT_EQ(AwaitHealth(HealthCheckResponse::NOT_SERVING), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(Generate(Request("c")).status.error_code(), grpc::StatusCode::UNAVAILABLE);
  engine_->Stop();
  EXPECT_THAT(failures_, SizeIs(1));
}

TEST_F(StateTest, ADrainLetsRunningStreamsFinishAndRefusesNewOnes) {
  EnterReady();
  runner_.Hold(true);
  grpc::ClientContext context;
  const auto request = Request("last", 200);
  const auto reader = stub_->Generate(&context, request);
  runner_.AwaitHeld();
  board_.Enter(WorkerState::kDraining);
  EXPECT_FALSE(engine_->Drain(absl::Now())) << "one is still running";
  const Outcome refused = Generate(Request("new"));
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(refused.status.error_message(), HasSubstr("draining"));
  runner_.Hold(false);
  EXPECT_TRUE(engine_->Drain(absl::Now() + absl::Seconds(20)));
  Outcome outcome;
  ReadAll(*reader, &outcome);
  EXPECT_TRUE(outcome.status.ok());
  EXPECT_EQ(outcome.tokens[0], Alone(request));
}

TEST_F(StateTest, AStopFailsWhatADrainCouldNotFinish) {
  EnterReady();
  runner_.Hold(true);
  grpc::ClientContext context;
  const auto reader = stub_->Generate(&context, Request("cut", 900));
  runner_.AwaitHeld();
  EXPECT_FALSE(engine_->Drain(absl::Now()));
  std::thread stopper([this] { engine_->Stop(); });
  runner_.Hold(false);
  stopper.join();
  Outcome outcome;
  ReadAll(*reader, &outcome);
  // The whole text, if the engine was quicker than the stop.
  if (outcome.finishes.empty()) {
    EXPECT_EQ(outcome.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  }
}

}  // namespace
}  // namespace behemoth::worker
