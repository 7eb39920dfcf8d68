// The sampler at a vocabulary of 32,768 (one line at 131,072), and the row-wise kernels at the
// 123B's widths: microseconds per launch inside a graph of 32. DRY over long contexts step by step.
#include <utility>

#include "kernels/bench/fused_graph_timer.cuh"
#include "kernels/fused/fused.h"
#include "kernels/sampling/sampling.h"

namespace behemoth::kernels::bench {
namespace {

constexpr int kLaunches = 32;

template <typename LaunchOne>
double Each(LaunchOne launch) {
  return GraphMicroseconds([&](cudaStream_t stream) {
           for (int i = 0; i < kLaunches; ++i) {
             Check(launch(LaunchContext{stream, /*overlap_predecessor=*/i > 0}));
           }
         }) /
         kLaunches;
}

constexpr int kHistory = 8192;  // tokens of a sequence
constexpr int kSteps = 32;      // behind each other, in LongHistories

// `length` tokens of `kinds` different ids: of 200, the last token of 8,192 has 40 occurrences.
void AddHistories(int rows, int vocabulary, int length, uint32_t kinds, SampleArgs* args) {
  const size_t stride = static_cast<size_t>(length) + kSteps;
  std::vector<int32_t> history(static_cast<size_t>(rows) * stride);
  uint32_t state = 99;
  for (int32_t& id : history) {
    id = static_cast<int32_t>(((state = state * 1664525u + 1013904223u) >> 16) % kinds);
  }
  const size_t slots = static_cast<size_t>(rows);
  args->history = Upload(history);
  args->history_stride = static_cast<int64_t>(stride);
  args->repeats = Upload(std::vector<uint32_t>(history.size(), 0));
  args->breaker_end = Upload(std::vector<int32_t>(slots, 0));
  args->breakers =
      Upload(std::vector<uint32_t>(slots * ((static_cast<size_t>(vocabulary) + 31) / 32), 0));
  args->phrases = Upload(std::vector<int32_t>(slots * kPhraseWords, 0));
}

// The first `likely` ids are what is drawn.
SampleArgs Batch(int rows, int vocabulary, const SlotSampling& sampling, int history, int likely) {
  std::vector<float> logits(static_cast<size_t>(rows) * static_cast<size_t>(vocabulary));
  uint32_t state = 12345;
  for (float& x : logits) {  // sum of uniforms: a bell of standard deviation 2
    x = 0;
    for (int i = 0; i < 12; ++i)
      x += static_cast<float>((state = state * 1664525u + 1013904223u) >> 8) * 0x1p-24f;
    x = (x - 6.0f) * 2.0f;
  }
  std::vector<int32_t> slot, position;
  std::vector<SlotSampling> slots;
  for (int row = 0; row < rows; ++row) {
    slot.push_back(row);
    position.push_back(sampling.has_history != 0 ? history : row);
    slots.push_back(sampling);
    for (int id = 0; id < likely; ++id) logits[static_cast<size_t>(row * vocabulary + id)] += 30.0f;
  }
  SampleArgs args = {.logits = Upload(logits),
                     .logits_stride = vocabulary,
                     .vocabulary = vocabulary,
                     .slot = Upload(slot),
                     .position = Upload(position),
                     .sampling = Upload(slots),
                     .out = Allocate<SampleOutput>(slot.size()),
                     .top = Allocate<TopToken>(slot.size() * kMaxTopLogprobs),
                     .rows = rows};
  args.token_use = Allocate<uint32_t>(logits.size());
  Check(cudaMemset(args.token_use, 0, logits.size() * 4), "memset");
  args.scratch =
      reinterpret_cast<uint32_t*>(Allocate<char>(SampleScratchBytes(vocabulary, rows) + 16));
  return args;
}

void Sampling(int rows, int vocabulary, SlotSampling sampling, const char* name) {
  SampleArgs args = Batch(rows, vocabulary, sampling, kHistory, /*likely=*/0);
  if (sampling.has_history != 0) AddHistories(rows, vocabulary, kHistory, 200, &args);
  std::printf("sample %3d rows of %6d, %-28s %7.2f us\n", rows, vocabulary, name,
              Each([&](const LaunchContext& c) { return LaunchSample(args, c); }));
}

// Microseconds of each of kSteps launches at positions behind each other, with nothing in L2
// before: a step has read all weights in between.
std::vector<float> StepByStep(SampleArgs args) {
  constexpr size_t kFlushBytes = size_t{256} << 20;
  char* const flush = Allocate<char>(kFlushBytes);
  std::vector<int32_t> position(static_cast<size_t>(args.rows));
  Check(cudaMemcpy(position.data(), args.position, 4 * position.size(), cudaMemcpyDeviceToHost),
        "download");
  cudaEvent_t begin, end;
  Check(cudaEventCreate(&begin), "event");
  Check(cudaEventCreate(&end), "event");
  std::vector<float> times;
  for (int step = 0; step < kSteps; ++step) {
    args.position = Upload(position);
    Check(cudaMemsetAsync(flush, step, kFlushBytes), "memset");
    Check(cudaEventRecord(begin), "record");
    Check(LaunchSample(args, {}));
    Check(cudaEventRecord(end), "record");
    Check(cudaEventSynchronize(end), "run");
    Check(cudaEventElapsedTime(&times.emplace_back(), begin, end), "elapsed");
    times.back() *= 1e3f;
    for (int32_t& at : position) ++at;
  }
  Check(cudaFree(flush), "free");
  return times;
}

// What DRY adds to a row that has another sampler, and to the first step behind a binding, which
// knows of no repeat: over words (200 ids), and over one and the same id, the most that there is to
// follow.
void LongHistories(int rows, int length) {
  constexpr int kVocabulary = 32768;
  constexpr double kStepUs = 35e3;  // of 64 rows at the 123B's shape
  for (const int kinds : {200, 1}) {
    SlotSampling sampling = {.temperature = 0.8f, .has_stages = 1, .has_history = 1};
    sampling.dry_base = 1.0f;
    sampling.dry_allowed_length = kinds == 1 ? kMaxDryAllowedLength : 2;
    const auto times_with = [&](float multiplier) {
      sampling.dry_multiplier = multiplier;
      SampleArgs args = Batch(rows, kVocabulary, sampling, length, kinds);
      AddHistories(rows, kVocabulary, length, static_cast<uint32_t>(kinds), &args);
      std::vector<float> times = StepByStep(args);
      const float first = times.front();
      std::sort(times.begin(), times.end());
      return std::pair(first, times[times.size() / 2]);
    };
    const double without = times_with(0.0f).second;
    const auto [first, median] = times_with(0.001f);
    std::printf(
        "dry over %6d tokens of %3d ids, %2d rows: %7.2f us for %6.2f without, +%.3f %% of a step "
        "of "
        "35 ms; the first %7.2f us\n",
        length, kinds, rows, median, without, 100 * (median - without) / kStepUs, first);
  }
}

void RowWise(int rows) {
  constexpr int kHidden = 12288, kWidth = 28672;
  const size_t n = static_cast<size_t>(rows);
  bf16* wide = Allocate<bf16>(n * 2 * kWidth);
  bf16* residual = Allocate<bf16>(n * kHidden);
  bf16* out = Allocate<bf16>(n * kWidth);
  FillRandom(wide, n * 2 * kWidth * 2, 3);
  FillRandom(residual, n * kHidden * 2, 4);
  const RmsNormArgs norm = {.delta = wide,
                            .residual = residual,
                            .gamma = wide,
                            .out = {.plain = out},
                            .rows = rows,
                            .hidden = kHidden};
  std::vector<int32_t> position, table_row(n, 0), table;
  for (int row = 0; row < rows; ++row) position.push_back(row);
  for (int i = 0; i <= rows / 64; ++i) table.push_back(i);
  std::vector<float> frequency(64, 0.01f);
  const KvShape shape = {8, 128, KvType::kBf16};
  const RopeKvWriteArgs rope = {.qkv = wide,
                                .position = Upload(position),
                                .inverse_frequency = Upload(frequency),
                                .block_table = Upload(table),
                                .table_row = Upload(table_row),
                                .block_table_stride = static_cast<int>(table.size()),
                                .q = out,
                                .kv = Allocate<char>(table.size() * KvBlockBytes(shape)),
                                .shape = shape,
                                .q_heads = 96,
                                .rows = rows};
  const SiluMulArgs silu = {
      .gate_up = wide, .out = {.plain = out}, .rows = rows, .width = kWidth, .run = kWidth};
  const double norm_us = Each([&](const LaunchContext& c) { return LaunchRmsNorm(norm, c); });
  const double rope_us = Each([&](const LaunchContext& c) { return LaunchRopeKvWrite(rope, c); });
  const double silu_us = Each([&](const LaunchContext& c) { return LaunchSiluMul(silu, c); });
  std::printf(
      "rows %4d | norm + residual %7.2f us %6.0f GB/s | rope + kv %7.2f us %6.0f GB/s | "
      "silu %7.2f us %6.0f GB/s\n",
      rows, norm_us, rows * kHidden * 8.0 / norm_us * 1e-3, rope_us,
      rows * 14336 * 4.0 / rope_us * 1e-3, silu_us, rows * kWidth * 6.0 / silu_us * 1e-3);
}

int Main() {
  std::printf("commit %s\n", BEHEMOTH_COMMIT);
  for (const int rows : {1, 16, 64}) {
    Sampling(rows, 32768, {.temperature = 0.0f}, "greedy");
    Sampling(rows, 32768, {.temperature = 0.8f}, "temperature");
    Sampling(rows, 32768, {.temperature = 0.8f, .top_p = 0.95f}, "top_p");
    Sampling(rows, 32768,
             {.temperature = 0.8f,
              .top_p = 0.95f,
              .min_p = 0.05f,
              .top_k = 40,
              .repetition_penalty = 1.1f,
              .tracks_tokens = 1},
             "all of it");
    Sampling(rows, 32768, {.temperature = 0.8f, .top_logprobs = 20}, "20 logprobs");
    Sampling(rows, 32768, {.temperature = 0.8f, .has_stages = 1, .xtc_probability = 1.0f}, "xtc");
    Sampling(rows, 32768, {.temperature = 0.8f, .has_stages = 1, .typical_p = 0.9f}, "typical_p");
    Sampling(rows, 32768, {.temperature = 0.8f, .has_stages = 1, .top_n_sigma = 1.0f},
             "top_n_sigma");
    Sampling(rows, 32768, {.temperature = 0.8f, .has_history = 1, .dry_multiplier = 0.8f}, "dry");
    Sampling(rows, 32768,
             {.temperature = 0.8f,
              .min_p = 0.05f,
              .repetition_penalty = 1.1f,
              .top_logprobs = 20,
              .tracks_tokens = 1,
              .has_stages = 1,
              .has_history = 1,
              .xtc_probability = 0.5f,
              .dry_multiplier = 0.8f},
             "dry, xtc, penalties, logprobs");
  }
  Sampling(16, 131072, {.temperature = 0.8f, .top_p = 0.95f}, "top_p");
  for (const int rows : {1, 64}) {
    for (const int length : {8192, 131072}) LongHistories(rows, length);
  }
  for (const int rows : {1, 16, 64, 2048}) RowWise(rows);
  return 0;
}

}  // namespace
}  // namespace behemoth::kernels::bench

int main() { return behemoth::kernels::bench::Main(); }
