#include "kernels/common/device_limits.h"

#include <cuda_runtime.h>

#include <algorithm>

#include "kernels/common/code_architecture.cuh"

namespace behemoth::kernels {
namespace {

struct Attribute {
  cudaDeviceAttr name;
  int* value;
};

// All code of a build is compiled for the same architectures: this kernel tells which one runs.
__global__ void Probe() {}

}  // namespace

KernelError QueryDeviceLimits(int ordinal, DeviceLimits* limits) {
  int major = 0, minor = 0, l2_bytes = 0;
  const Attribute attributes[] = {
      {cudaDevAttrComputeCapabilityMajor, &major},
      {cudaDevAttrComputeCapabilityMinor, &minor},
      {cudaDevAttrMultiProcessorCount, &limits->sm_count},
      {cudaDevAttrMaxSharedMemoryPerBlockOptin, &limits->shared_bytes_per_block},
      {cudaDevAttrMaxSharedMemoryPerMultiprocessor, &limits->shared_bytes_per_sm},
      {cudaDevAttrL2CacheSize, &l2_bytes},
  };
  for (const Attribute& attribute : attributes) {
    const cudaError_t error = cudaDeviceGetAttribute(attribute.value, attribute.name, ordinal);
    if (error != cudaSuccess) return {error, "cudaDeviceGetAttribute"};
  }
  cudaError_t error = cudaSetDevice(ordinal);
  if (error != cudaSuccess) return {error, "cudaSetDevice"};
  int code = 0;
  error = CodeArchitecture(reinterpret_cast<const void*>(Probe), &code);
  // The one means by name what the other means too: no code for this device.
  if (error == cudaErrorInvalidDeviceFunction) error = cudaErrorNoKernelImageForDevice;
  if (error != cudaSuccess) return {error, "cudaFuncGetAttributes"};
  size_t free_bytes = 0, total_bytes = 0;
  error = cudaMemGetInfo(&free_bytes, &total_bytes);
  if (error != cudaSuccess) return {error, "cudaMemGetInfo"};
  limits->compute_capability = std::min(10 * major + minor, code);
  limits->l2_bytes = l2_bytes;
  limits->memory_bytes = static_cast<int64_t>(total_bytes);
  return {};
}

}  // namespace behemoth::kernels
