#include "worker/device/cuda/memory.h"

#include <absl/strings/str_cat.h>
#include <cuda_runtime.h>

namespace behemoth::worker::cuda {

absl::StatusOr<Memory> Memory::Allocate(MemoryKind kind, size_t bytes) {
  Memory memory;
  if (bytes == 0) return memory;
  const bool on_device = kind == MemoryKind::kDevice;
  const cudaError_t error = on_device ? cudaMalloc(&memory.data_, bytes)
                                      : cudaHostAlloc(&memory.data_, bytes, cudaHostAllocDefault);
  if (error != cudaSuccess) {
    return absl::ResourceExhaustedError(
        absl::StrCat(on_device ? "the GPU" : "the host", " refused ", bytes, " bytes",
                     on_device ? "" : " of pinned memory", ": ", cudaGetErrorString(error)));
  }
  memory.kind_ = kind;
  memory.bytes_ = bytes;
  return memory;
}

Memory& Memory::operator=(Memory&& other) noexcept {
  std::swap(kind_, other.kind_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

Memory::~Memory() {
  if (data_ == nullptr) return;
  if (kind_ == MemoryKind::kDevice) {
    cudaFree(data_);
  } else {
    cudaFreeHost(data_);
  }
}

uintptr_t Arena::TakeBytes(size_t bytes) {
  const size_t rounded = Rounded(bytes);
  if (overflowed_ || rounded > bytes_ - used_) {
    overflowed_ = true;
    return 0;
  }
  return base_ + std::exchange(used_, used_ + rounded);
}

}  // namespace behemoth::worker::cuda
