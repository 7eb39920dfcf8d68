// The tiny checkpoint on the CPU backend, through ModelRunner as the engine drives it.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <memory>

#include "worker/runner/model_loader.h"

namespace behemoth::worker {
namespace {

constexpr int32_t kRowsAtMost = 64;
constexpr int32_t kBlocksPerRow = 8;

std::unique_ptr<ModelRunner> Runner(benchmark::State& state) {
  static const std::unique_ptr<Device> cpu = OpenCpu();
  auto model = OpenModel({.folder = BEHEMOTH_SOURCE_DIR "/tests/models/tiny",
                          .max_model_len = 64 * kBlocksPerRow,
                          .max_sequences = kRowsAtMost},
                         *cpu);
  if (!model.ok()) {
    state.SkipWithError(std::string(model.status().message()).c_str());
    return nullptr;
  }
  auto runner = (*model)->Load(kRowsAtMost * kBlocksPerRow, nullptr);
  if (runner.ok()) return *std::move(runner);
  state.SkipWithError(std::string(runner.status().message()).c_str());
  return nullptr;
}

// `rows` sequences, `count` tokens of each from `position` on.
StepPlan Plan(int32_t rows, int32_t position, int32_t count) {
  StepPlan plan;
  for (int32_t r = 0; r < rows; ++r) {
    const SlotId slot{r};
    plan.rows.push_back({.first_token = r * count,
                         .token_count = count,
                         .position = position,
                         .first_block = r * kBlocksPerRow,
                         .block_count = kBlocksPerRow,
                         .slot = slot});
    for (int32_t i = 0; i < count; ++i) {
      plan.token_ids.push_back(300 + (r * 37 + position + i) % 3000);
    }
    for (int32_t b = 0; b < kBlocksPerRow; ++b) {
      plan.block_ids.push_back(BlockId{r * kBlocksPerRow + b});
    }
    plan.samples.push_back({.row = r, .slot = slot, .position = position + count});
  }
  return plan;
}

void Bind(StepPlan& plan, int32_t rows) {
  auto sampling = std::make_shared<SamplingParams>();
  sampling->temperature = 0.7f;
  sampling->top_p = 0.95f;
  for (int32_t r = 0; r < rows; ++r) {
    plan.bindings.push_back({.slot = SlotId{r}, .sampling = sampling});
  }
}

void Step(ModelRunner& runner, const StepPlan& plan, benchmark::State& state) {
  const absl::Status submitted = runner.Submit(plan);
  auto result = runner.Await();
  if (!submitted.ok() || !result.ok()) state.SkipWithError("the step failed");
  benchmark::DoNotOptimize(result);
}

// One token of each of `rows` sequences a step, contexts of 32 to 480 tokens.
void Decode(benchmark::State& state) {
  const int32_t rows = static_cast<int32_t>(state.range(0));
  const auto runner = Runner(state);
  if (runner == nullptr) return;
  StepPlan first = Plan(rows, 0, 1);
  Bind(first, rows);
  Step(*runner, first, state);
  int32_t position = 32;
  for (auto _ : state) {
    Step(*runner, Plan(rows, position, 1), state);
    position = position == 480 ? 32 : position + 1;
  }
  state.counters["tokens/s"] =
      benchmark::Counter(rows, benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(Decode)->Arg(1)->Arg(4)->Arg(16)->Arg(64)->UseRealTime()->Unit(benchmark::kMillisecond);

// A prompt of `tokens` tokens in one chunk.
void Prefill(benchmark::State& state) {
  const int32_t tokens = static_cast<int32_t>(state.range(0));
  const auto runner = Runner(state);
  if (runner == nullptr) return;
  StepPlan plan = Plan(1, 0, tokens);
  Bind(plan, 1);
  for (auto _ : state) Step(*runner, plan, state);
  state.counters["tokens/s"] =
      benchmark::Counter(tokens, benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(Prefill)->Arg(32)->Arg(256)->Arg(512)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace behemoth::worker
