// The host's share of a step: all that the engine thread does (mailbox, plan, commit, publish into
// real gRPC streams, metrics) with a runner that costs next to nothing and whose cost is taken off.
// The figure is CPU time of the engine thread, so that the clients in this process do not count.
#include <absl/strings/str_cat.h>
#include <benchmark/benchmark.h>
#include <time.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "proto/support/grpc_server.h"
#include "proto/support/health.h"
#include "worker/engine/engine.h"
#include "worker/probe.h"
#include "worker/rpc/worker_service.h"

namespace behemoth::worker {
namespace {

constexpr int32_t kOutput = 4000;  // long enough for all rows to decode together

double ThreadSeconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Samples the same token for ever, and counts what the engine thread spends outside of it while
// every row is decoding.
class MeteredRunner : public ModelRunner {
 public:
  MeteredRunner(const RunnerLimits& limits, size_t rows) : limits_(limits), rows_(rows) {}
  RunnerLimits limits() const override { return limits_; }

  absl::Status Submit(const StepPlan& plan) override {
    const double now = ThreadSeconds();
    const bool full = plan.samples.size() == rows_ && plan.token_ids.size() == rows_;
    if (full && last_was_full_) {
      host_seconds_ += now - left_at_;
      ++steps_;
    }
    last_was_full_ = full;
    result_.number = plan.number;
    result_.samples.assign(plan.samples.size(), SampleResult{.token = 5});
    result_.prompt_logprobs.clear();
    return absl::OkStatus();
  }

  absl::StatusOr<StepResult> Await() override {
    StepResult result = result_;
    left_at_ = ThreadSeconds();
    return result;
  }

  // After the engine has stopped.
  double host_seconds() const { return host_seconds_; }
  int64_t steps() const { return steps_; }

 private:
  const RunnerLimits limits_;
  const size_t rows_;
  StepResult result_;
  bool last_was_full_ = false;
  double left_at_ = 0, host_seconds_ = 0;
  int64_t steps_ = 0;
};

void Read(v1::WorkerService::Stub& stub, int id) {
  v1::GenerateRequest request;
  request.set_request_id(absl::StrCat("r", id));
  for (uint32_t i = 0; i < 16; ++i) request.add_prompt_ids(i + static_cast<uint32_t>(id));
  request.set_max_tokens(kOutput);
  request.set_ignore_eos(true);
  grpc::ClientContext context;
  const auto reader = stub.Generate(&context, request);
  v1::GenerateResponse response;
  while (reader->Read(&response)) benchmark::DoNotOptimize(response);
  reader->Finish();
}

void BM_HostStep(benchmark::State& state) {
  const auto rows = static_cast<int32_t>(state.range(0));
  const RunnerLimits limits{.vocabulary_size = 32768,
                            .context_tokens = 4096,
                            .blocks = 64 * rows,
                            .tokens_per_block = 64,
                            .max_sequences = rows,
                            .max_step_tokens = 16 * rows};
  double seconds = 0;
  int64_t steps = 0;
  for (auto _ : state) {
    prometheus::Registry registry;
    Probe probe(registry, {.model_name = "bench", .blocks = limits.blocks});
    StatusBoard board{v1::GetStatusResponse()};
    support::Health health;
    StreamWriter writer;
    MeteredRunner runner(limits, static_cast<size_t>(rows));
    EngineHooks hooks;
    hooks.on_publish = [&](const LoadSnapshot& load) {
      probe.OnLoad(load);
      writer.Flush();
    };
    Engine engine({.context_tokens = limits.context_tokens,
                   .blocks = limits.blocks,
                   .tokens_per_block = limits.tokens_per_block,
                   .max_sequences = rows,
                   .max_step_tokens = limits.max_step_tokens},
                  {}, &runner, &probe, std::move(hooks));
    LoadFeed feed([] { return v1::WatchLoadResponse(); });
    WorkerService service({.vocabulary_size = limits.vocabulary_size,
                           .context_tokens = limits.context_tokens,
                           .max_sequences = rows},
                          &board, &feed, &writer, &probe);
    engine.Start();
    service.Attach(&engine, nullptr);
    board.Enter(WorkerState::kWarming);
    board.Enter(WorkerState::kReady);
    auto server = support::GrpcServer::Start({.listen = "127.0.0.1:0"}, {&service}, &health);
    const auto stub = v1::WorkerService::NewStub(grpc::CreateChannel(
        absl::StrCat("127.0.0.1:", (*server)->port()), grpc::InsecureChannelCredentials()));
    std::vector<std::thread> readers;
    for (int32_t i = 0; i < rows; ++i) readers.emplace_back([&, i] { Read(*stub, i); });
    for (std::thread& reader : readers) reader.join();
    engine.Stop();
    (*server)->Drain(absl::ZeroDuration());
    seconds += runner.host_seconds();
    steps += runner.steps();
  }
  if (steps == 0) return state.SkipWithError("the rows never decoded together");
  state.counters["host_us_per_step"] = 1e6 * seconds / static_cast<double>(steps);
  state.counters["steps"] = static_cast<double>(steps);
}
BENCHMARK(BM_HostStep)->Arg(1)->Arg(16)->Arg(64)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace behemoth::worker
