// What this card can do at all, in one run: device copy, read-only rate of one launch by size, the
// bytes of one whole decode step of the 123B shape read by as many dependent launches (the limit of
// decode at batch 1), pinned host copies. One line each: name, value, unit.
//   device_limits [layers]   (88 layers need 64 GB of device memory)
#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>

#include "kernels/bench/read_chain.cuh"
#include "kernels/common/device_limits.h"

namespace behemoth::kernels::bench {
namespace {

constexpr int64_t kMegabyte = 1'000'000;

void Print(const char* name, double value, const char* unit) {
  std::printf("%-40s %12.3f %s\n", name, value, unit);
}

// A kernel, not cudaMemcpyAsync: an H200's copy engine moves 2.7 TB/s where this moves 3.8.
__global__ void __launch_bounds__(512) CopyAll(uint4* to, const uint4* from, int64_t count) {
  const int64_t stride = int64_t{gridDim.x} * 512;
  for (int64_t i = int64_t{blockIdx.x} * 512 + threadIdx.x; i < count; i += 4 * stride) {
    uint4 v[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (i + j * stride < count) v[j] = __ldcs(from + i + j * stride);
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (i + j * stride < count) __stcs(to + i + j * stride, v[j]);
    }
  }
}

// GB/s of `bytes` moved by what `enqueue` puts on a stream.
template <typename Enqueue>
double Rate(int64_t bytes, Enqueue enqueue) {
  return static_cast<double>(bytes) / GraphMicroseconds(enqueue) * 1e-3;
}

// `spans` launches of `bytes` each over fresh memory, so that L2 holds nothing of the next.
std::vector<Span> Slices(const char* pool, int64_t pool_bytes, int64_t bytes) {
  std::vector<Span> spans;
  for (int64_t at = 0; at + bytes <= pool_bytes && spans.size() < 32; at += bytes) {
    spans.push_back({pool + at, bytes});
  }
  return spans;
}

int Main(int layers) {
  DeviceLimits limits;
  Check(QueryDeviceLimits(0, &limits));
  cudaDeviceProp device;
  Check(cudaGetDeviceProperties(&device, 0), "properties");
  std::printf("device %s, %d SMs, %.1f GB, commit %s\n", device.name, limits.sm_count,
              static_cast<double>(limits.memory_bytes) * 1e-9, BEHEMOTH_COMMIT);

  const std::vector<int64_t> step = DecodeStepBytes(layers);
  int64_t step_bytes = 0;
  for (const int64_t bytes : step) step_bytes += bytes;
  constexpr int64_t kCopyBytes = int64_t{8} << 30;
  const int64_t pool_bytes = std::max(step_bytes, 2 * kCopyBytes);
  char* pool = Allocate<char>(static_cast<size_t>(pool_bytes));
  auto* sink = Allocate<uint32_t>(1);
  FillRandom(pool, static_cast<size_t>(pool_bytes), 7);

  Print("copy_8GiB_read_plus_write",
        Rate(2 * kCopyBytes,
             [&](cudaStream_t stream) {
               CopyAll<<<limits.sm_count * 8, 512, 0, stream>>>(
                   reinterpret_cast<uint4*>(pool),
                   reinterpret_cast<const uint4*>(pool + kCopyBytes), kCopyBytes / 16);
             }),
        "GB/s");
  for (const int64_t megabytes : {8590, 704, 352, 176, 75}) {
    // Every launch waits for the one before it: this is one kernel alone, edges included.
    const std::vector<Span> spans = Slices(pool, pool_bytes, megabytes * kMegabyte);
    const double rate =
        Rate(static_cast<int64_t>(spans.size()) * megabytes * kMegabyte, [&](cudaStream_t stream) {
          for (const Span& span : spans) EnqueueReads({span}, limits.sm_count, sink, stream);
        });
    char name[64];
    std::snprintf(name, sizeof name, "read_only_alone_%lldMB", static_cast<long long>(megabytes));
    Print(name, rate, "GB/s");
  }
  std::vector<Span> spans;
  int64_t at = 0;
  for (const int64_t bytes : step) spans.push_back({pool + at, bytes}), at += bytes;
  const double us = GraphMicroseconds(
      [&](cudaStream_t stream) { EnqueueReads(spans, limits.sm_count, sink, stream); }, 9);
  Print("decode_step_bytes", static_cast<double>(step_bytes) * 1e-9, "GB");
  Print("decode_step_launches", static_cast<double>(step.size()), "launches");
  Print("decode_step_read", us * 1e-3, "ms");
  Print("decode_step_rate", static_cast<double>(step_bytes) / us * 1e-3, "GB/s");
  Print("decode_step_limit", 1e6 / us, "tok/s");

  constexpr int64_t kHostBytes = int64_t{1} << 30;
  void* host = nullptr;
  Check(cudaMallocHost(&host, kHostBytes), "cudaMallocHost");
  const auto copy = [&](void* to, const void* from) {
    return Rate(kHostBytes, [&](cudaStream_t stream) {
      Check(cudaMemcpyAsync(to, from, kHostBytes, cudaMemcpyDefault, stream), "copy");
    });
  };
  Print("pinned_host_to_device", copy(pool, host), "GB/s");
  Print("pinned_device_to_host", copy(host, pool), "GB/s");
  return 0;
}

}  // namespace
}  // namespace behemoth::kernels::bench

int main(int argc, char** argv) {
  return behemoth::kernels::bench::Main(argc > 1 ? std::atoi(argv[1]) : 88);
}
