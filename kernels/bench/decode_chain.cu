// The GEMMs of one decode step of the 123B shape, 88 x (qkv, o, gate_up, down) + bf16 lm_head, as
// dependent launches in one CUDA graph, for each batch size; and in the same run the limit: the
// same bytes read by as many dependent launches that compute nothing. Prints microseconds, GB/s, %
// of the limit, and whether row 0's logits are the same bits for every batch size. Weights are
// random with mean zero: a mean would make the chain drift to infinities, and those draw less power
// than real numbers do.
//   decode_chain [layers [sweep | matrices]]   (88 layers need 64 GB of device memory)
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

#include "kernels/bench/read_chain.cuh"
#include "kernels/w4a16_gemm/decode_gemm.h"

namespace behemoth::kernels {
namespace {

using bench::Check;

__device__ uint32_t Mix(uint64_t x) {
  x ^= x >> 31, x *= 0x9e3779b97f4a7c15ull, x ^= x >> 29, x *= 0xbf58476d1ce4e5b9ull;
  return static_cast<uint32_t>(x >> 32);
}
// Nibbles 1..15 (weights -7..7); the scale words of each blob become `scale` twice.
__global__ void FillInt4(uint32_t* words, int64_t count, uint32_t scale_pair, uint64_t seed) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride) {
    uint32_t word = Mix(seed + i);
    for (int j = 0; j < 32; j += 4) {
      if ((word >> j & 15u) == 0) word |= 8u << j;
    }
    words[i] = i % 1056 < 1024 ? word : scale_pair;
  }
}
__global__ void FillHead(uint16_t* values, int64_t count, uint16_t magnitude, uint64_t seed) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride) {
    const uint32_t r = Mix(seed + i);
    values[i] = static_cast<uint16_t>((magnitude & 0xff80u) | (r & 0x807fu));
  }
}
__global__ void CopyRow(const uint16_t* rows, uint16_t* act, int k, int padded_rows) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < k * padded_rows;
       i += gridDim.x * blockDim.x) {
    const int column = i / 8 / padded_rows * 8 + i % 8, row = i / 8 % padded_rows;
    act[i] = rows[int64_t{row} * k + column];
  }
}
struct Matrix {
  int n, k;
  WeightKind kind;
  GemmEpilogue epilogue;
  float scale;
  std::vector<void*> copies;
  int64_t bytes() const { return PackedBytes(kind, n, k); }
};
enum { kQkv, kOut, kGateUp, kDown, kHead };

constexpr int kHidden = 12288;
constexpr const char* kFamilyNames[] = {"async", "bulk", "wgmma"};
constexpr int kBatches[] = {1, 2, 4, 8, 16, 32, 64};

struct Chain {
  int layers;
  DeviceLimits limits;
  cudaStream_t stream;  // the one being captured
  std::vector<Matrix> matrices;
  void *rows, *act[4], *logits, *partials, *counters;

  void Allocate(void** pointer, size_t bytes) { Check(cudaMalloc(pointer, bytes), "cudaMalloc"); }
  void Build();
  void Complete(int m, const DecodeGemmConfig& choice, DecodeGemmConfig* configs);
  void EnqueueStep(int m, const DecodeGemmConfig& choice);
  void EnqueueOne(int m, int i, int layer, int next, int next_layer,
                  const DecodeGemmConfig* configs, bool overlap);
  void TimeMatrices(int m, const DecodeGemmConfig& choice);
};

uint16_t Bits(float value) { return ToBf16(value).bits; }

void Chain::Build() {
  // Standard deviation of the weights times sqrt(k) is about 1.
  matrices = {{14336, kHidden, WeightKind::kInt4, GemmEpilogue::kStore, 0.0021f, {}},
              {kHidden, kHidden, WeightKind::kInt4, GemmEpilogue::kStore, 0.0021f, {}},
              {57344, kHidden, WeightKind::kInt4, GemmEpilogue::kSiluMul, 0.0021f, {}},
              {kHidden, 28672, WeightKind::kInt4, GemmEpilogue::kAddResidual, 0.0007f, {}},
              {32768, kHidden, WeightKind::kBf16, GemmEpilogue::kStore, 0.01f, {}}};
  uint64_t seed = 1;
  for (int i = 0; i < 5; ++i) {
    Matrix& matrix = matrices[i];
    matrix.copies.resize(i == kHead ? 1 : layers);
    for (void*& copy : matrix.copies) {
      Allocate(&copy, matrix.bytes());
      const uint32_t scale =
          i == kHead ? Bits(matrix.scale) : PackedScale(ToBf16(matrix.scale)).bits;
      if (i == kHead) {
        FillHead<<<1024, 256>>>(static_cast<uint16_t*>(copy), matrix.bytes() / 2, scale, seed);
      } else {
        FillInt4<<<1024, 256>>>(static_cast<uint32_t*>(copy), matrix.bytes() / 4,
                                scale | scale << 16, seed);
      }
      seed += 0x100000000ull;
    }
  }
  Allocate(&rows, size_t{64} * kHidden * 2);
  FillHead<<<64, 256>>>(static_cast<uint16_t*>(rows), int64_t{64} * kHidden, Bits(1.0f), 77);
  for (void*& buffer : act) Allocate(&buffer, size_t{64} * 28672 * 2);
  Allocate(&logits, size_t{64} * 32768 * 4);
  Allocate(&partials, size_t{2} * limits.sm_count * kUnitRows * 64 * 4);
  Allocate(&counters, 4096);
  Check(cudaMemset(counters, 0, 4096), "cudaMemset");
  Check(cudaDeviceSynchronize(), "fill");
}

void Chain::Complete(int m, const DecodeGemmConfig& choice, DecodeGemmConfig* configs) {
  for (int i = 0; i < 5; ++i) {
    const DecodeGemmShape shape = {m, matrices[i].n, matrices[i].k, matrices[i].kind};
    const auto config = CompleteDecodeGemm(choice, shape, limits);
    if (!config) std::exit(1);
    configs[i] = *config;
  }
}

void Chain::EnqueueStep(int m, const DecodeGemmConfig& choice) {
  DecodeGemmConfig configs[5];
  Complete(m, choice, configs);
  CopyRow<<<64, 256, 0, stream>>>(static_cast<uint16_t*>(rows), static_cast<uint16_t*>(act[0]),
                                  kHidden, PaddedRows(m));
  const int launches = 4 * layers + 1;
  for (int launch = 0; launch < launches; ++launch) {
    const int i = launch + 1 == launches ? kHead : launch % 4;
    const int next = launch + 2 == launches ? kHead : (launch + 1) % 4;
    EnqueueOne(m, i, launch / 4, next, (launch + 1) / 4, configs, launch > 0);
  }
}

// One GEMM: matrix i of layer `layer`; its stripes' end asks for the start of `next`.
void Chain::EnqueueOne(int m, int i, int layer, int next, int next_layer,
                       const DecodeGemmConfig* configs, bool overlap) {
  const Matrix& matrix = matrices[i];
  DecodeGemmArgs args;
  args.weight = matrix.copies[i == kHead ? 0 : layer];
  args.act = static_cast<bf16*>(act[i % 4]);
  args.out = i == kHead ? logits : act[(i + 1) % 4];
  args.residual = static_cast<bf16*>(rows);
  args.partials = static_cast<float*>(partials);
  args.counters = static_cast<uint32_t*>(counters);
  args.m = m, args.n = matrix.n, args.k = matrix.k;
  args.epilogue = matrix.epilogue;
  args.output = i == kHead ? GemmOutput::kRowMajorFloat : GemmOutput::kActivation;
  if (configs[i].prefetch_steps > 0 && i != kHead) {
    args.next_weight = matrices[next].copies[next == kHead ? 0 : next_layer];
    args.next_map = configs[next].map;
    args.next_unit_bytes = UnitBytes(matrices[next].kind);
  }
  Check(LaunchDecodeGemm(configs[i], matrix.kind, args, {stream, overlap}));
}

// Each matrix for itself: all its layers, one after the other, and the same reads.
void Chain::TimeMatrices(int m, const DecodeGemmConfig& choice) {
  DecodeGemmConfig configs[5];
  Complete(m, choice, configs);
  constexpr const char* kNames[] = {"qkv", "o", "gate_up", "down", "lm_head"};
  for (int i = 0; i < 5; ++i) {
    const int count = static_cast<int>(matrices[i].copies.size());
    const int launches = std::max(count, 8);
    std::vector<bench::Span> reads;
    for (int launch = 0; launch < launches; ++launch) {
      reads.push_back({matrices[i].copies[launch % count], matrices[i].bytes()});
    }
    const double read_us =
        bench::GraphMicroseconds([&](cudaStream_t capture) {
          bench::EnqueueReads(reads, limits.sm_count, static_cast<uint32_t*>(partials), capture);
        }) /
        launches;
    const double us =
        bench::GraphMicroseconds([&](cudaStream_t capture) {
          stream = capture;
          for (int launch = 0; launch < launches; ++launch) {
            EnqueueOne(m, i, launch % count, i, (launch + 1) % count, configs, launch > 0);
          }
        }) /
        launches;
    std::printf("  %-8s %8.2f us, read %8.2f us, %5.1f %%\n", kNames[i], us, read_us,
                100 * read_us / us);
  }
}

// What SelectDecodeGemm takes, or with `sweep` every family, ring size and prefetch depth.
std::vector<DecodeGemmConfig> Choices(int m, bool sweep, const DeviceLimits& limits) {
  const auto selected = SelectDecodeGemm({m, kHidden, kHidden, WeightKind::kInt4}, limits);
  if (!selected) std::exit(1);
  if (!sweep) return {*selected};
  std::vector<DecodeGemmConfig> choices;
  for (const GemmFamily family : {GemmFamily::kAsync, GemmFamily::kBulk, GemmFamily::kWgmma}) {
    if (family == GemmFamily::kBulk && !limits.has_bulk_copy()) continue;
    if (family == GemmFamily::kWgmma && (m < 16 || !limits.has_wgmma())) continue;
    for (const int ring_bytes : {99 << 10, 113 << 10, 160 << 10, 227 << 10}) {
      if (ring_bytes > limits.shared_bytes_per_block) continue;
      for (const int prefetch : {0, 24}) {
        if (family == GemmFamily::kAsync && prefetch > 0) continue;
        DecodeGemmConfig choice;
        choice.family = family, choice.padded_rows = PaddedRows(m);
        choice.stages = ring_bytes / (UnitBytes(WeightKind::kInt4) +
                                      UnitColumns(WeightKind::kInt4) * choice.padded_rows * 2);
        choice.prefetch_steps = prefetch;
        choices.push_back(choice);
      }
    }
  }
  return choices;
}

enum class Mode { kSelected, kSweep, kMatrices };

int Run(int layers, Mode mode) {
  Chain chain = {};
  chain.layers = layers;
  Check(QueryDeviceLimits(0, &chain.limits));
  chain.Build();
  double bytes = 0;
  for (const Matrix& matrix : chain.matrices) bytes += 1.0 * matrix.bytes() * matrix.copies.size();
  std::vector<bench::Span> reads;
  for (int launch = 0; launch <= 4 * layers; ++launch) {
    const Matrix& matrix = chain.matrices[launch == 4 * layers ? kHead : launch % 4];
    reads.push_back({matrix.copies[launch == 4 * layers ? 0 : launch / 4], matrix.bytes()});
  }
  const double limit_ms = bench::GraphMicroseconds(
                              [&](cudaStream_t stream) {
                                bench::EnqueueReads(reads, chain.limits.sm_count,
                                                    static_cast<uint32_t*>(chain.logits), stream);
                              },
                              9) *
                          1e-3;
  std::printf("commit %s, %d layers, %.2f GB; limit %.3f ms, %.0f GB/s\n", BEHEMOTH_COMMIT, layers,
              bytes / 1e9, limit_ms, bytes / limit_ms / 1e6);
  std::vector<float> first(32768), row(32768);
  bool have_first = false, equal = true;
  for (const int m : kBatches) {
    for (const DecodeGemmConfig& choice : Choices(m, mode == Mode::kSweep, chain.limits)) {
      const double ms = bench::GraphMicroseconds([&](cudaStream_t stream) {
                          chain.stream = stream;
                          chain.EnqueueStep(m, choice);
                        }) *
                        1e-3;
      Check(cudaMemcpy(row.data(), chain.logits, row.size() * 4, cudaMemcpyDeviceToHost), "read");
      if (!have_first) first = row, have_first = true;
      const bool same = std::memcmp(first.data(), row.data(), row.size() * 4) == 0;
      equal = equal && same;
      std::printf(
          "m %2d %-5s stages %2d prefetch %2d: %9.1f us %6.0f GB/s %5.1f %% of limit  %s "
          " "
          "logits %g %g\n",
          m, kFamilyNames[static_cast<int>(choice.family)], choice.stages, choice.prefetch_steps,
          ms * 1e3, bytes / ms / 1e6, 100 * limit_ms / ms, same ? "same bits" : "OTHER BITS",
          row[0], row[12345]);
      if (mode == Mode::kMatrices) chain.TimeMatrices(m, choice);
    }
  }
  return equal ? 0 : 1;
}

}  // namespace
}  // namespace behemoth::kernels

int main(int argc, char** argv) {
  using behemoth::kernels::Mode;
  const std::string_view mode = argc > 2 ? argv[2] : "";
  return behemoth::kernels::Run(argc > 1 ? std::atoi(argv[1]) : 88, mode == "sweep" ? Mode::kSweep
                                                                    : mode == "matrices"
                                                                        ? Mode::kMatrices
                                                                        : Mode::kSelected);
}
