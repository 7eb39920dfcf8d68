// The GEMMs of one decode step of the 123B shape, 88 x (qkv, o, gate_up, down) + bf16 lm_head, as
// dependent launches in one CUDA graph, for each batch size; and in the same run the limit: the
// same bytes read by as many dependent launches that compute nothing. Prints microseconds, GB/s, %
// of the limit, and whether row 0's logits are the same bits for every batch size. Weights are
// random with mean zero: a mean would make the chain drift to infinities, and those draw less power
// than real numbers do.
//   decode_chain [layers]   (88 layers need 64 GB of device memory)
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "kernels/common/launch.cuh"
#include "kernels/common/ptx.cuh"
#include "kernels/w4a16_gemm/decode_gemm.h"

namespace behemoth::kernels {
namespace {

void Require(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}
void Require(KernelError error) { Require(static_cast<cudaError_t>(error.code), error.operation); }

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
__global__ void FillBf16(uint16_t* values, int64_t count, uint16_t magnitude, uint64_t seed) {
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
// Reads bytes and keeps nothing: the limit.
__global__ void __launch_bounds__(512) ReadOnly(const uint4* data, int64_t count, uint32_t* sink) {
  ptx::AllowSuccessor();
  const int64_t stride = int64_t{gridDim.x} * 512;
  uint4 sum = {0, 0, 0, 0};
  int64_t i = int64_t{blockIdx.x} * 512 + threadIdx.x;
  for (; i + 7 * stride < count; i += 8 * stride) {
    uint4 v[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) v[j] = __ldcs(data + i + j * stride);
#pragma unroll
    for (int j = 0; j < 8; ++j) sum.x ^= v[j].x, sum.y ^= v[j].y, sum.z ^= v[j].z, sum.w ^= v[j].w;
  }
  for (; i < count; i += stride) sum.x ^= __ldcs(data + i).x;
  ptx::WaitForPredecessor();
  if ((sum.x ^ sum.y ^ sum.z ^ sum.w) == 0x12345678u) *sink = sum.x;
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
constexpr int kBatches[] = {1, 2, 4, 8, 16, 32, 64};

struct Chain {
  int layers;
  DeviceLimits limits;
  cudaStream_t stream;
  std::vector<Matrix> matrices;
  void *rows, *act[4], *logits, *partials, *counters;

  void Allocate(void** pointer, size_t bytes) { Require(cudaMalloc(pointer, bytes), "cudaMalloc"); }
  void Build();
  double TimeGraph(cudaGraphExec_t graph, int repeats);
  void EnqueueStep(int m, GemmFamily family, int prefetch);
  template <typename Enqueue>
  cudaGraphExec_t Capture(const Enqueue& enqueue);
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
      const uint32_t scale = Bits(matrix.scale);
      if (i == kHead) {
        FillBf16<<<1024, 256>>>(static_cast<uint16_t*>(copy), matrix.bytes() / 2, scale, seed);
      } else {
        FillInt4<<<1024, 256>>>(static_cast<uint32_t*>(copy), matrix.bytes() / 4,
                                scale | scale << 16, seed);
      }
      seed += 0x100000000ull;
    }
  }
  Allocate(&rows, size_t{64} * kHidden * 2);
  FillBf16<<<64, 256>>>(static_cast<uint16_t*>(rows), int64_t{64} * kHidden, Bits(1.0f), 77);
  for (void*& buffer : act) Allocate(&buffer, size_t{64} * 28672 * 2);
  Allocate(&logits, size_t{64} * 32768 * 4);
  Allocate(&partials, size_t{2} * limits.sm_count * kUnitRows * 64 * 4);
  Allocate(&counters, 4096);
  Require(cudaMemset(counters, 0, 4096), "cudaMemset");
  Require(cudaDeviceSynchronize(), "fill");
}

void Chain::EnqueueStep(int m, GemmFamily family, int prefetch) {
  DecodeGemmConfig configs[5];
  for (int i = 0; i < 5; ++i) {
    const DecodeGemmShape shape = {m, matrices[i].n, matrices[i].k, matrices[i].kind};
    DecodeGemmConfig choice;
    choice.family = family, choice.padded_rows = PaddedRows(m), choice.stages = 32;
    choice.prefetch_steps = prefetch;
    const auto config = CompleteDecodeGemm(choice, shape, limits);
    if (!config) std::exit(1);
    configs[i] = *config;
  }
  CopyRow<<<64, 256, 0, stream>>>(static_cast<uint16_t*>(rows), static_cast<uint16_t*>(act[0]),
                                  kHidden, PaddedRows(m));
  const int launches = 4 * layers + 1;
  for (int launch = 0; launch < launches; ++launch) {
    const int i = launch + 1 == launches ? kHead : launch % 4;
    const int next = launch + 2 == launches ? kHead : (launch + 1) % 4;
    const Matrix& matrix = matrices[i];
    DecodeGemmArgs args;
    args.weight = matrix.copies[i == kHead ? 0 : launch / 4];
    args.act = static_cast<bf16*>(act[i % 4]);
    args.out = i == kHead ? logits : act[(i + 1) % 4];
    args.residual = static_cast<bf16*>(rows);
    args.partials = static_cast<float*>(partials);
    args.counters = static_cast<uint32_t*>(counters);
    args.m = m, args.n = matrix.n, args.k = matrix.k;
    args.epilogue = matrix.epilogue;
    args.output = i == kHead ? GemmOutput::kRowMajorFloat : GemmOutput::kActivation;
    if (prefetch > 0 && i != kHead) {
      args.next_weight = matrices[next].copies[next == kHead ? 0 : (launch + 1) / 4];
      args.next_map = configs[next].map;
      args.next_unit_bytes = UnitBytes(matrices[next].kind);
    }
    Require(LaunchDecodeGemm(configs[i], matrix.kind, args, {stream, launch > 0}));
  }
}

template <typename Enqueue>
cudaGraphExec_t Chain::Capture(const Enqueue& enqueue) {
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  Require(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), "capture");
  enqueue();
  Require(cudaStreamEndCapture(stream, &graph), "end of capture");
  Require(cudaGraphInstantiate(&executable, graph, 0), "instantiate");
  Require(cudaGraphDestroy(graph), "destroy");
  return executable;
}

// Median milliseconds of a replay.
double Chain::TimeGraph(cudaGraphExec_t graph, int repeats) {
  std::vector<float> times(repeats);
  cudaEvent_t start, stop;
  Require(cudaEventCreate(&start), "event");
  Require(cudaEventCreate(&stop), "event");
  for (int i = -2; i < repeats; ++i) {
    Require(cudaEventRecord(start, stream), "record");
    Require(cudaGraphLaunch(graph, stream), "launch");
    Require(cudaEventRecord(stop, stream), "record");
    Require(cudaEventSynchronize(stop), "step");
    if (i >= 0) Require(cudaEventElapsedTime(&times[i], start, stop), "elapsed");
  }
  Require(cudaGraphExecDestroy(graph), "destroy");
  std::sort(times.begin(), times.end());
  return times[repeats / 2];
}

int Run(int layers) {
  Chain chain = {};
  chain.layers = layers;
  Require(QueryDeviceLimits(0, &chain.limits));
  Require(cudaStreamCreate(&chain.stream), "stream");
  chain.Build();
  double bytes = 0;
  for (const Matrix& matrix : chain.matrices) bytes += 1.0 * matrix.bytes() * matrix.copies.size();
  const double limit_ms = chain.TimeGraph(chain.Capture([&] {
    for (int launch = 0; launch <= 4 * layers; ++launch) {
      const Matrix& matrix = chain.matrices[launch == 4 * layers ? kHead : launch % 4];
      Require(Launch(ReadOnly, {dim3(chain.limits.sm_count * 4), dim3(512)},
                     {chain.stream, launch > 0},
                     static_cast<uint4*>(matrix.copies[launch == 4 * layers ? 0 : launch / 4]),
                     matrix.bytes() / 16, static_cast<uint32_t*>(chain.logits)));
    }
  }),
                                          9);
  std::printf("commit %s, %d layers, %.2f GB; limit %.3f ms, %.0f GB/s\n", BEHEMOTH_COMMIT, layers,
              bytes / 1e9, limit_ms, bytes / limit_ms / 1e6);
  std::vector<float> first(32768), row(32768);
  bool have_first = false, equal = true;
  for (int m : kBatches) {
    for (GemmFamily family : {GemmFamily::kBulk, GemmFamily::kWgmma}) {
      if (family == GemmFamily::kWgmma && m < 16) continue;
      for (int prefetch : {0, 12, 24}) {
        const double ms =
            chain.TimeGraph(chain.Capture([&] { chain.EnqueueStep(m, family, prefetch); }), 7);
        Require(cudaMemcpy(row.data(), chain.logits, row.size() * 4, cudaMemcpyDeviceToHost),
                "read");
        if (!have_first) first = row, have_first = true;
        const bool same = std::memcmp(first.data(), row.data(), row.size() * 4) == 0;
        equal = equal && same;
        std::printf(
            "m %2d %-5s prefetch %2d: %9.1f us %6.0f GB/s %5.1f %% of limit  %s  logits %g %g\n", m,
            family == GemmFamily::kBulk ? "mma" : "wgmma", prefetch, ms * 1e3, bytes / ms / 1e6,
            100 * limit_ms / ms, same ? "same bits" : "OTHER BITS", row[0], row[12345]);
      }
    }
  }
  return equal ? 0 : 1;
}

}  // namespace
}  // namespace behemoth::kernels

int main(int argc, char** argv) {
  return behemoth::kernels::Run(argc > 1 ? std::atoi(argv[1]) : 88);
}
