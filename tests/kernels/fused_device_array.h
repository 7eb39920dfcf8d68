// What the tests of attention, row-wise and sampling kernels share: device arrays, seeded values,
// and the one stated reason to skip (no GPU here).
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "kernels/common/bf16.h"
#include "kernels/common/device_limits.h"

namespace behemoth::kernels {

#define SKIP_WITHOUT_GPU()                                                  \
  int gpus = 0;                                                             \
  if (cudaGetDeviceCount(&gpus) != cudaSuccess || gpus == 0) {              \
    GTEST_SKIP() << "no CUDA device on this machine; run on a GPU machine"; \
  }

inline DeviceLimits LimitsOfDevice() {
  DeviceLimits limits;
  EXPECT_TRUE(QueryDeviceLimits(0, &limits).ok());
  return limits;
}

template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<T>& host) : count_(host.size()) {
    EXPECT_EQ(cudaMalloc(reinterpret_cast<void**>(&data_), bytes() + 16), cudaSuccess);
    Upload(host);
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { cudaFree(data_); }

  T* get() const { return data_; }
  size_t bytes() const { return count_ * sizeof(T); }
  void Upload(const std::vector<T>& host) {
    EXPECT_EQ(cudaMemcpy(data_, host.data(), bytes(), cudaMemcpyHostToDevice), cudaSuccess);
  }
  std::vector<T> Download() const {
    std::vector<T> host(count_);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(host.data(), data_, bytes(), cudaMemcpyDeviceToHost), cudaSuccess);
    return host;
  }

 private:
  size_t count_;
  T* data_ = nullptr;
};

class Values {
 public:
  explicit Values(uint32_t seed) : engine_(seed) {}
  float Normal() { return normal_(engine_); }
  int Below(int bound) { return static_cast<int>(engine_() % static_cast<uint32_t>(bound)); }
  std::vector<bf16> Bf16(size_t count, float scale = 1.0f) {
    std::vector<bf16> out(count);
    for (bf16& value : out) value = ToBf16(scale * Normal());
    return out;
  }

 private:
  std::mt19937 engine_;
  std::normal_distribution<float> normal_;
};

template <typename T>
bool SameBits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

}  // namespace behemoth::kernels
