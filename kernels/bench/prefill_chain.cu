// The GEMMs of prefill at the 123B shape: qkv, o, gate_up, down of two layers in turn (so that no
// weight is left in L2), for chunks of 72 to 8,192 tokens. Prints TFLOP/s of each matrix and the
// tokens per second of 88 layers of these GEMMs alone. Random data with mean zero.
//   prefill_chain [sweep]
#include <cuda_runtime.h>

#include <cstdio>
#include <optional>
#include <string_view>
#include <vector>

#include "kernels/bench/fused_graph_timer.cuh"
#include "kernels/common/device_limits.h"
#include "kernels/w4a16_gemm/prefill_gemm.h"

namespace behemoth::kernels::bench {
namespace {

constexpr int kLayers = 2, kModelLayers = 88, kRepeats = 4;

// Nibbles 1..15, whose weights have mean zero; scale words `scale_pair`.
__global__ void FillInt4(uint32_t* words, int64_t count, uint32_t scale_pair, uint32_t seed) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride) {
    uint32_t word = (static_cast<uint32_t>(i) ^ seed) * 2654435761u;
    word ^= word >> 15, word *= 2246822519u, word ^= word >> 13;
    for (int j = 0; j < 32; j += 4) {
      if ((word >> j & 15u) == 0) word |= 8u << j;
    }
    words[i] = i % (BlobBytes(WeightKind::kInt4) / 4) < 1024 ? word : scale_pair;
  }
}

struct Matrix {
  const char* name;
  int n, k;
  GemmEpilogue epilogue;
  void* weight[kLayers];
};

// What SelectPrefillGemm takes, or with `sweep` every walk, and tiles whose sums are not cut into
// the decode GEMM's pieces: what equal bits cost.
struct Choice {
  const char* name;
  PrefillGemmConfig config;
  bool is_selected = false;
  bool is_cut = true;
};
std::vector<Choice> Choices(int m, bool sweep) {
  if (!sweep) return {{"selected", {}, true}};
  std::vector<Choice> choices = {{"tiles 256", {.tile_rows = 256}}};
  if (m < 1024) choices.push_back({"tiles 128", {.tile_rows = 128}});
  if (m <= 1024) choices.push_back({"stripes", {.walk = PrefillWalk::kStripes}});
  choices.push_back({"async", {.tile_rows = 256, .family = GemmFamily::kAsync}});
  if (m <= 2048) {
    choices.push_back(
        {"async str.", {.walk = PrefillWalk::kStripes, .family = GemmFamily::kAsync}});
  }
  if (m >= 512) choices.push_back({"uncut 256", {.tile_rows = 256}, false, false});
  return choices;
}

std::optional<PrefillGemmConfig> Configure(const Choice& choice, const PrefillGemmShape& shape,
                                           const DeviceLimits& limits) {
  if (choice.is_selected) return SelectPrefillGemm(shape, limits);
  auto config = CompletePrefillGemm(choice.config, shape, limits);
  if (config && !choice.is_cut) config->map.blocks = 1;
  return config;
}

size_t MaxPartialsBytes(const DeviceLimits& limits) {
  const auto config = SelectPrefillGemm({8192, 57344, 12288, WeightKind::kInt4}, limits);
  return config ? PartialsBytes(*config) : 0;
}

int Main(bool sweep) {
  DeviceLimits limits;
  Check(QueryDeviceLimits(0, &limits));
  Matrix matrices[] = {{"qkv", 14336, 12288, GemmEpilogue::kStore, {}},
                       {"o", 12288, 12288, GemmEpilogue::kAddResidual, {}},
                       {"gate_up", 57344, 12288, GemmEpilogue::kSiluMul, {}},
                       {"down", 12288, 28672, GemmEpilogue::kAddResidual, {}}};
  uint32_t seed = 1;
  const uint32_t scale = PackedScale(ToBf16(0.0021f)).bits;
  for (Matrix& matrix : matrices) {
    for (void*& weight : matrix.weight) {
      const int64_t bytes = PackedBytes(WeightKind::kInt4, matrix.n, matrix.k);
      weight = Allocate<char>(static_cast<size_t>(bytes));
      FillInt4<<<1024, 256>>>(static_cast<uint32_t*>(weight), bytes / 4, scale | scale << 16,
                              seed++);
    }
  }
  constexpr size_t kMaxTokens = 8192, kWidest = 28672;
  auto* act = Allocate<bf16>(kMaxTokens * kWidest);
  auto* out = Allocate<bf16>(kMaxTokens * kWidest);
  FillRandom(act, kMaxTokens * kWidest * sizeof(bf16), 3);
  FillRandom(out, kMaxTokens * kWidest * sizeof(bf16), 4);
  auto* partials = Allocate<char>(MaxPartialsBytes(limits));
  auto* counters = Allocate<uint32_t>(1024);
  Check(cudaMemset(counters, 0, 1024 * sizeof(uint32_t)), "cudaMemset");
  std::printf("commit %s, %d SMs\n", BEHEMOTH_COMMIT, limits.sm_count);
  for (const int m : {72, 80, 96, 128, 160, 192, 256, 384, 512, 1024, 2048, 4096, 8192}) {
    for (const Choice& choice : Choices(m, sweep)) {
      // A sweep leaves out what the device lacks.
      if (!Configure(choice, {m, 14336, 12288, WeightKind::kInt4}, limits)) continue;
      double layer_us = 0, layer_flop = 0;
      std::printf("m %4d %-10s", m, choice.name);
      for (const Matrix& matrix : matrices) {
        const auto config = Configure(choice, {m, matrix.n, matrix.k, WeightKind::kInt4}, limits);
        if (!config) return 1;
        DecodeGemmArgs args;
        args.act = act, args.out = out, args.residual = out;
        args.partials = reinterpret_cast<float*>(partials), args.counters = counters;
        args.m = m, args.n = matrix.n, args.k = matrix.k, args.epilogue = matrix.epilogue;
        const double us =
            GraphMicroseconds(
                [&](cudaStream_t stream) {
                  for (int i = 0; i < kRepeats; ++i) {
                    args.weight = matrix.weight[i % kLayers];
                    Check(LaunchPrefillGemm(*config, WeightKind::kInt4, args, {stream, i > 0}));
                  }
                },
                5) /
            kRepeats;
        const double flop = 2.0 * m * matrix.n * matrix.k;
        std::printf("  %s %.0f us %.0f TFLOP/s", matrix.name, us, flop / us * 1e-6);
        layer_us += us, layer_flop += flop;
      }
      std::printf("  all %.0f TFLOP/s, 88 layers %.1f ms, %.0f tok/s\n",
                  layer_flop / layer_us * 1e-6, layer_us * kModelLayers * 1e-3,
                  m / (layer_us * kModelLayers * 1e-6));
    }
  }
  return 0;
}

}  // namespace
}  // namespace behemoth::kernels::bench

int main(int argc, char** argv) {
  return behemoth::kernels::bench::Main(argc > 1 && std::string_view(argv[1]) == "sweep");
}
