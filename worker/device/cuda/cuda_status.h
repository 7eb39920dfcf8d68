// CUDA's and the kernels' errors as absl::Status: the one place that translates them.
#pragma once

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>
#include <cuda_runtime.h>

#include "kernels/common/kernel_error.h"

namespace behemoth::worker::cuda {

inline absl::Status FromCuda(cudaError_t error, const char* operation) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string text = absl::StrCat(operation, ": ", cudaGetErrorString(error));
  return error == cudaErrorMemoryAllocation ? absl::ResourceExhaustedError(text)
                                            : absl::InternalError(text);
}

inline absl::Status FromKernel(const kernels::KernelError& error) {
  return FromCuda(static_cast<cudaError_t>(error.code), error.operation);
}

}  // namespace behemoth::worker::cuda
