#include "tests/integration/worker/worker_fixture.h"

#include <absl/strings/str_cat.h>

#include <utility>

namespace behemoth::worker {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

constexpr absl::Duration kPatience = absl::Seconds(20);

class Recorder : public DoorObserver {
 public:
  Recorder(absl::Mutex* mutex, std::vector<absl::Status>* refusals)
      : mutex_(mutex), refusals_(refusals) {}
  void OnRefused(const absl::Status& why) override {
    absl::MutexLock lock(mutex_);
    refusals_->push_back(why);
  }

 private:
  absl::Mutex* const mutex_;
  std::vector<absl::Status>* const refusals_;
};

}  // namespace

GatedRunner::GatedRunner(const RunnerLimits& limits)
    : limits_(limits), fake_(limits.blocks, limits.tokens_per_block, limits.max_sequences) {}

absl::Status GatedRunner::Submit(const StepPlan& plan) {
  results_.push_back(fake_.Run(plan));
  return absl::OkStatus();
}

absl::StatusOr<StepResult> GatedRunner::Await() {
  absl::MutexLock lock(&mutex_);
  const auto released = [this] { return !held_ || allowed_ > 0; };
  waiting_ = held_;
  mutex_.Await(absl::Condition(&released));
  waiting_ = false;
  if (held_) --allowed_;
  if (broken_) return absl::InternalError("the device is gone");
  StepResult result = std::move(results_.front());
  results_.erase(results_.begin());
  return result;
}

void GatedRunner::Hold(bool held) {
  absl::MutexLock lock(&mutex_);
  held_ = held;
}

void GatedRunner::AwaitHeld() {
  absl::MutexLock lock(&mutex_);
  ASSERT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&waiting_), kPatience));
}

void GatedRunner::Step() {
  absl::MutexLock lock(&mutex_);
  if (std::exchange(waiting_, false)) ++allowed_;
}

void GatedRunner::Break() {
  absl::MutexLock lock(&mutex_);
  broken_ = true;
  held_ = false;
}

WorkerFixture::WorkerFixture() : runner_(limits_), board_(v1::GetStatusResponse()) {
  door_ = std::make_unique<Recorder>(&mutex_, &refusals_);
  EngineHooks hooks;
  hooks.on_publish = [this](const LoadSnapshot& load) {
    {
      absl::MutexLock lock(&mutex_);
      load_ = load;
    }
    writer_.Flush();
  };
  hooks.on_failure = [this](const absl::Status& why) {
    board_.Enter(WorkerState::kFailed);
    absl::MutexLock lock(&mutex_);
    failures_.push_back(why);
  };
  engine_ = std::make_unique<Engine>(ConfigFor(limits_), queue_, &runner_, &schedule_observer_,
                                     std::move(hooks));
  engine_->Start();
  feed_ =
      std::make_unique<LoadFeed>([this] { return ToMessage(board_.reported(), engine_->load()); });
  watchdog_ = std::make_unique<EngineWatchdog>(
      kHeartbeat, [this] { return engine_->last_beat(); }, &board_, &health_);
  board_.SetListener([this] {
    watchdog_->Refresh();
    feed_->Announce();
  });
  const RequestLimits request_limits{.vocabulary_size = kVocabulary,
                                     .context_tokens = kContext,
                                     .max_sequences = limits_.max_sequences,
                                     .eos_ids = {3}};
  service_ =
      std::make_unique<WorkerService>(request_limits, &board_, feed_.get(), &writer_, door_.get());
  health_.Set("", true);
  auto server = support::GrpcServer::Start({.listen = "127.0.0.1:0"}, {service_.get()}, &health_);
  EXPECT_TRUE(server.ok()) << server.status();
  server_ = *std::move(server);
  // A fixed window: what a reader that does not read lets through has one size.
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  const auto channel = grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", server_->port()),
                                                 grpc::InsecureChannelCredentials(), arguments);
  stub_ = v1::WorkerService::NewStub(channel);
  health_stub_ = grpc::health::v1::Health::NewStub(channel);
}

WorkerFixture::~WorkerFixture() {
  runner_.Hold(false);
  engine_->Stop();
  feed_->End();
  server_->Drain(absl::Seconds(5));
  EXPECT_EQ(runner_.error(), "");
}

void WorkerFixture::EnterReady() {
  service_->Attach(engine_.get(), nullptr);
  EXPECT_TRUE(board_.Enter(WorkerState::kWarming));
  EXPECT_TRUE(board_.Enter(WorkerState::kReady));
}

v1::GenerateRequest WorkerFixture::Request(const std::string& id, int32_t max_tokens) const {
  v1::GenerateRequest request;
  request.set_request_id(id);
  // The hash of the id makes prompts differ.
  uint64_t hash = 7;
  for (const char c : id) hash = HashOf(hash, static_cast<uint64_t>(c));
  for (uint32_t i = 0; i < 20; ++i) request.add_prompt_ids(HashOf(hash, i) % 900);
  request.set_max_tokens(static_cast<uint32_t>(max_tokens));
  request.set_ignore_eos(true);
  request.mutable_sampling()->set_seed(1);
  return request;
}

Outcome WorkerFixture::Generate(const v1::GenerateRequest& request) {
  grpc::ClientContext context;
  Outcome outcome;
  const auto reader = stub_->Generate(&context, request);
  ReadAll(*reader, &outcome);
  return outcome;
}

void WorkerFixture::ReadAll(grpc::ClientReader<v1::GenerateResponse>& reader, Outcome* outcome) {
  v1::GenerateResponse response;
  while (reader.Read(&response)) {
    if (response.has_progress()) outcome->progress.push_back(response.progress());
    if (response.has_finish()) outcome->finishes.push_back(response.finish());
    if (response.has_tokens()) {
      const size_t sequence = response.tokens().sequence();
      if (outcome->tokens.size() <= sequence) outcome->tokens.resize(sequence + 1);
      for (const uint32_t id : response.tokens().ids()) {
        outcome->tokens[sequence].push_back(static_cast<TokenId>(id));
      }
    }
  }
  outcome->status = reader.Finish();
}

grpc::Status WorkerFixture::Control(const v1::ControlRequest& request) {
  grpc::ClientContext context;
  v1::ControlResponse response;
  return stub_->Control(&context, request, &response);
}

HealthCheckResponse::ServingStatus WorkerFixture::AwaitHealth(
    HealthCheckResponse::ServingStatus wanted) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
  HealthCheckRequest request;
  request.set_service("behemoth.worker.v1.WorkerService");
  const auto reader = health_stub_->Watch(&context, request);
  HealthCheckResponse response;
  while (reader->Read(&response) && response.status() != wanted) {
  }
  context.TryCancel();
  return response.status();
}

void WorkerFixture::AwaitLoad(const std::function<bool(const LoadSnapshot&)>& holds) {
  absl::MutexLock lock(&mutex_);
  const auto condition = [&] { return holds(load_); };
  EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&condition), kPatience));
}

void WorkerFixture::StepWhile(const std::function<bool()>& goes_on) {
  while (goes_on()) {
    Control(v1::ControlRequest());
    runner_.Step();
  }
}

void WorkerFixture::AwaitRefusals(size_t count) {
  absl::MutexLock lock(&mutex_);
  const auto condition = [&] { return refusals_.size() >= count; };
  EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&condition), kPatience));
}

std::vector<TokenId> WorkerFixture::Alone(const v1::GenerateRequest& request,
                                          int32_t sequence) const {
  GenerationRequest generation;
  generation.prompt.assign(request.prompt_ids().begin(), request.prompt_ids().end());
  generation.sampling.seed = request.sampling().seed();
  generation.max_tokens = static_cast<int32_t>(request.max_tokens());
  return RunAlone(generation, sequence).tokens;
}

}  // namespace behemoth::worker
