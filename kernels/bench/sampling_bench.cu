// The sampler at a vocabulary of 32,768 (one line at 131,072), and the row-wise kernels at the
// 123B's widths: microseconds per launch inside a graph of 32.
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

// Of 200 different ids, so that the last token has 40 occurrences.
void AddHistories(int rows, int vocabulary, SampleArgs* args) {
  std::vector<int32_t> history(static_cast<size_t>(rows) * (kHistory + 1));
  uint32_t state = 99;
  for (int32_t& id : history) {
    id = static_cast<int32_t>(((state = state * 1664525u + 1013904223u) >> 16) % 200);
  }
  const size_t slots = static_cast<size_t>(rows);
  args->history = Upload(history);
  args->history_stride = kHistory + 1;
  args->breaker_end = Upload(std::vector<int32_t>(slots, 0));
  args->breakers =
      Upload(std::vector<uint32_t>(slots * ((static_cast<size_t>(vocabulary) + 31) / 32), 0));
  args->phrases = Upload(std::vector<int32_t>(slots * kPhraseWords, 0));
}

void Sampling(int rows, int vocabulary, SlotSampling sampling, const char* name) {
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
    position.push_back(sampling.has_history != 0 ? kHistory : row);
    slots.push_back(sampling);
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
  if (sampling.has_history != 0) AddHistories(rows, vocabulary, &args);
  args.scratch =
      reinterpret_cast<uint32_t*>(Allocate<char>(SampleScratchBytes(vocabulary, rows) + 16));
  std::printf("sample %3d rows of %6d, %-28s %7.2f us\n", rows, vocabulary, name,
              Each([&](const LaunchContext& c) { return LaunchSample(args, c); }));
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
  for (const int rows : {1, 16, 64, 2048}) RowWise(rows);
  return 0;
}

}  // namespace
}  // namespace behemoth::kernels::bench

int main() { return behemoth::kernels::bench::Main(); }
