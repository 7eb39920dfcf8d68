// The limit that decode benches are held against: bytes read and nothing computed, by as many
// dependent launches as the work under test has.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <vector>

#include "kernels/bench/fused_graph_timer.cuh"
#include "kernels/common/launch.cuh"
#include "kernels/common/ptx.cuh"

namespace behemoth::kernels::bench {

// Reads `count` 16-byte words, 8 loads in flight a thread. Loads come before the wait for the
// predecessor, as those of weights may.
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

struct Span {
  const void* data;
  int64_t bytes;  // a multiple of 16
};

inline void EnqueueReads(const std::vector<Span>& spans, int sm_count, uint32_t* sink,
                         cudaStream_t stream) {
  bool overlap = false;
  for (const Span& span : spans) {
    Check(Launch(ReadOnly, {dim3(sm_count * 4), dim3(512)}, {stream, overlap},
                 static_cast<const uint4*>(span.data), span.bytes / 16, sink));
    overlap = true;
  }
}

// The launches of one decode step of the 123B shape, in bytes of packed weights: qkv, o, gate_up,
// down of each layer, then the bf16 lm_head.
inline std::vector<int64_t> DecodeStepBytes(int layers) {
  constexpr int64_t kHidden = 12288, kInner = 28672;
  const auto int4 = [](int64_t n, int64_t k) { return n * k / 2 + n * k / 128 * 2; };
  std::vector<int64_t> bytes;
  for (int layer = 0; layer < layers; ++layer) {
    bytes.push_back(int4(14336, kHidden));
    bytes.push_back(int4(kHidden, kHidden));
    bytes.push_back(int4(2 * kInner, kHidden));
    bytes.push_back(int4(kHidden, kInner));
  }
  bytes.push_back(int64_t{32768} * kHidden * 2);
  return bytes;
}

}  // namespace behemoth::kernels::bench
