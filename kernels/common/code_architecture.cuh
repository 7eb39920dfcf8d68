// Which code the driver took for a kernel. Host code of .cu files.
#pragma once

#include <cuda_runtime.h>

namespace behemoth::kernels {

// 10 * major + minor of the virtual architecture from which the kernel's code for the current
// device was compiled. Legal during stream capture.
inline cudaError_t CodeArchitecture(const void* kernel, int* architecture) {
  cudaFuncAttributes attributes;
  const cudaError_t error = cudaFuncGetAttributes(&attributes, kernel);
  if (error == cudaSuccess) *architecture = attributes.ptxVersion;
  return error;
}

}  // namespace behemoth::kernels
