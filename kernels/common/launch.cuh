// Launch(): the one place where a kernel is enqueued, with or without programmatic dependent
// launch. Included by .cu files only. Raises the dynamic shared memory limit where a kernel needs
// more than the default 48 KB; that call is legal during stream capture.
#pragma once

#include <cuda_runtime.h>

#include <utility>

#include "kernels/common/code_architecture.cuh"
#include "kernels/common/kernel_error.h"
#include "kernels/common/launch_context.h"

namespace behemoth::kernels {

struct LaunchShape {
  dim3 grid;
  dim3 block;
  size_t shared_bytes = 0;
};

// Code for sm_80 and sm_89 does not wait for its predecessor, not even where a newer device runs
// it.
inline bool WaitsForPredecessor(const void* kernel) {
  int architecture = 0;
  return CodeArchitecture(kernel, &architecture) == cudaSuccess && architecture >= 90;
}

template <typename... Parameters, typename... Arguments>
KernelError Launch(void (*kernel)(Parameters...), const LaunchShape& shape,
                   const LaunchContext& context, Arguments&&... arguments) {
  constexpr size_t kDefaultSharedBytes = 48 * 1024;
  if (shape.shared_bytes > kDefaultSharedBytes) {
    const cudaError_t error = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.shared_bytes));
    if (error != cudaSuccess) return {error, "cudaFuncSetAttribute"};
  }
  // Asked once: all kernels of a build are compiled alike, and a process drives GPUs of one kind.
  static const bool may_overlap = WaitsForPredecessor(reinterpret_cast<const void*>(kernel));
  cudaLaunchAttribute overlap = {};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = context.stream;
  config.attrs = &overlap;
  config.numAttrs = context.overlap_predecessor && may_overlap ? 1 : 0;
  const cudaError_t error =
      cudaLaunchKernelEx(&config, kernel, Parameters(std::forward<Arguments>(arguments))...);
  return {error, error == cudaSuccess ? "" : "cudaLaunchKernelEx"};
}

}  // namespace behemoth::kernels
