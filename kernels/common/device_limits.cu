#include "kernels/common/device_limits.h"

#include <cuda_runtime_api.h>

namespace behemoth::kernels {
namespace {

struct Attribute {
  cudaDeviceAttr name;
  int* value;
};

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
  size_t free_bytes = 0, total_bytes = 0;
  const cudaError_t error = cudaMemGetInfo(&free_bytes, &total_bytes);
  if (error != cudaSuccess) return {error, "cudaMemGetInfo"};
  limits->compute_capability = 10 * major + minor;
  limits->l2_bytes = l2_bytes;
  limits->memory_bytes = static_cast<int64_t>(total_bytes);
  return {};
}

}  // namespace behemoth::kernels
