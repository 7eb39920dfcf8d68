// Times a chain of launches as a CUDA graph: the way the server runs them. Used by the benches of
// attention, row-wise kernels and sampling.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "kernels/common/kernel_error.h"

namespace behemoth::kernels::bench {

inline void Check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}
inline void Check(const KernelError& error) {
  Check(static_cast<cudaError_t>(error.code), error.operation);
}

template <typename T>
T* Allocate(size_t count) {
  void* pointer = nullptr;
  Check(cudaMalloc(&pointer, count * sizeof(T)), "cudaMalloc");
  return static_cast<T*>(pointer);
}
template <typename T>
T* Upload(const std::vector<T>& host) {
  T* device = Allocate<T>(host.size());
  Check(cudaMemcpy(device, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice), "upload");
  return device;
}

// Median over `replays` of the graph that `enqueue(stream)` records, in microseconds.
template <typename Enqueue>
double GraphMicroseconds(Enqueue enqueue, int replays = 7) {
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  cudaEvent_t begin, end;
  Check(cudaStreamCreate(&stream), "stream");
  Check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), "capture");
  enqueue(stream);
  Check(cudaStreamEndCapture(stream, &graph), "end capture");
  Check(cudaGraphInstantiate(&executable, graph, 0), "instantiate");
  Check(cudaEventCreate(&begin), "event");
  Check(cudaEventCreate(&end), "event");
  std::vector<float> times;
  for (int i = 0; i < replays + 2; ++i) {
    Check(cudaEventRecord(begin, stream), "record");
    Check(cudaGraphLaunch(executable, stream), "launch");
    Check(cudaEventRecord(end, stream), "record");
    Check(cudaEventSynchronize(end), "run");
    float ms = 0;
    Check(cudaEventElapsedTime(&ms, begin, end), "elapsed");
    if (i >= 2) times.push_back(ms);
  }
  std::sort(times.begin(), times.end());
  Check(cudaGraphExecDestroy(executable), "destroy");
  Check(cudaGraphDestroy(graph), "destroy");
  return 1000.0 * static_cast<double>(times[times.size() / 2]);
}

// Random bf16 values of small magnitude: exponents 2^-3 .. 2^0, both signs. Never zeros
// (METHOD.md).
__global__ void FillBf16(uint16_t* data, size_t count, uint32_t seed) {
  for (size_t i = blockIdx.x * size_t{blockDim.x} + threadIdx.x; i < count;
       i += size_t{gridDim.x} * blockDim.x) {
    uint32_t x = static_cast<uint32_t>(i) * 2654435761u ^ seed;
    x ^= x >> 15, x *= 2246822519u, x ^= x >> 13, x *= 3266489917u, x ^= x >> 16;
    data[i] = static_cast<uint16_t>((x & 0x8000u) | ((124u + ((x >> 8) & 3u)) << 7) | (x & 0x7fu));
  }
}
inline void FillRandom(void* data, size_t bytes, uint32_t seed) {
  FillBf16<<<1024, 256>>>(static_cast<uint16_t*>(data), bytes / 2, seed);
  Check(cudaDeviceSynchronize(), "fill");
}

// A plain read of `bytes`: the limit that memory-bound lines are held against.
__global__ void ReadAll(const uint4* data, size_t count, uint32_t* sink) {
  uint32_t sum = 0;
  const size_t step = size_t{gridDim.x} * blockDim.x;
  size_t i = blockIdx.x * size_t{blockDim.x} + threadIdx.x;
  for (; i + 3 * step < count; i += 4 * step) {
    const uint4 a = __ldcs(data + i), b = __ldcs(data + i + step), c = __ldcs(data + i + 2 * step),
                d = __ldcs(data + i + 3 * step);
    sum ^= a.x ^ a.y ^ a.z ^ a.w ^ b.x ^ b.y ^ b.z ^ b.w ^ c.x ^ c.y ^ c.z ^ c.w ^ d.x ^ d.y ^ d.z ^
           d.w;
  }
  for (; i < count; i += step) sum ^= data[i].x;
  if (sum == 0x12345678u) *sink = sum;
}

}  // namespace behemoth::kernels::bench
