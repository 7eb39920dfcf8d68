// What the scheduler adds to a step: PlanStep and Commit, deliveries thrown away.
#include <benchmark/benchmark.h>

#include <memory>
#include <string>

#include "worker/schedule/scheduler.h"

namespace behemoth::worker {
namespace {

constexpr int32_t kTokensPerBlock = 64;

GenerationRequest Request(int64_t id, int32_t prompt_tokens, int32_t max_tokens) {
  GenerationRequest request;
  request.request_id = std::to_string(id);
  for (int32_t i = 0; i < prompt_tokens; ++i) {
    request.prompt.push_back(static_cast<TokenId>((id * 7919 + i) % 32768));
  }
  request.max_tokens = max_tokens;
  request.sampling.stop_ids = {2};
  request.fairness_key = std::to_string(id % 8);
  return request;
}

SchedulerConfig Config(int32_t sequences, int32_t context) {
  return {.context_tokens = context,
          .blocks = sequences * (context / kTokensPerBlock + 1),
          .tokens_per_block = kTokensPerBlock,
          .max_sequences = sequences,
          .max_step_tokens = 512};
}

void AnswerAll(const StepPlan& plan, StepResult* result) {
  result->number = plan.number;
  result->samples.resize(plan.samples.size());
  for (SampleResult& sample : result->samples) sample.token = 5;
}

// `rows` sequences decode, `context` tokens long each at the start.
void BM_DecodeStep(benchmark::State& state) {
  const auto rows = static_cast<int32_t>(state.range(0));
  const auto context = static_cast<int32_t>(state.range(1));
  constexpr int32_t kOutput = 4096;
  ScheduleObserver observer;
  StepResult result;
  absl::Time now = absl::FromUnixSeconds(1);
  auto scheduler = std::make_unique<Scheduler>(Config(rows, context + kOutput), &observer);
  const auto step = [&] {
    now += absl::Milliseconds(20);
    AnswerAll(scheduler->PlanStep(now), &result);
    scheduler->Commit(result, now + absl::Milliseconds(20));
    scheduler->deliveries().clear();
  };
  int32_t left = 0;
  for (auto _ : state) {
    if (left == 0) {
      state.PauseTiming();
      scheduler = std::make_unique<Scheduler>(Config(rows, context + kOutput), &observer);
      for (int32_t i = 0; i < rows; ++i) scheduler->Submit(Request(i, context, kOutput), now);
      do {
        step();
      } while (static_cast<int32_t>(result.samples.size()) < rows);
      left = kOutput / 2;
      state.ResumeTiming();
    }
    step();
    --left;
  }
}
BENCHMARK(BM_DecodeStep)
    ->Args({1, 512})
    ->Args({16, 512})
    ->Args({64, 512})
    ->Args({64, 8192})
    ->ArgNames({"rows", "context"})
    ->Unit(benchmark::kMicrosecond);

// A queue of many keys behind full slots costs a step little more.
void BM_DecodeStepWithQueue(benchmark::State& state) {
  constexpr int32_t kRows = 64;
  ScheduleObserver observer;
  StepResult result;
  absl::Time now = absl::FromUnixSeconds(1);
  Scheduler scheduler(Config(kRows, 1 << 20), &observer);
  for (int64_t i = 0; i < kRows + state.range(0); ++i) {
    scheduler.Submit(Request(i, 64, 1 << 19), now);
  }
  for (auto _ : state) {
    now += absl::Milliseconds(20);
    AnswerAll(scheduler.PlanStep(now), &result);
    scheduler.Commit(result, now);
    scheduler.deliveries().clear();
  }
}
BENCHMARK(BM_DecodeStepWithQueue)->Arg(1000)->Iterations(4096)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace behemoth::worker
