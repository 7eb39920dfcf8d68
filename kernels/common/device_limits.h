// DeviceLimits: the facts about one GPU that Select* functions decide by. A plain value: tests make
// their own, so every decision can be tabled without a device.
#pragma once

#include <cstdint>

#include "kernels/common/kernel_error.h"

namespace behemoth::kernels {

struct DeviceLimits {
  // 10 * major + minor: 80, 89, 90, 100, 120. That of the code which runs there: the device's own,
  // or the older one whose PTX the driver compiled because this build has no code for the device.
  int compute_capability = 0;
  int sm_count = 0;                // streaming multiprocessors
  int shared_bytes_per_block = 0;  // the opt-in maximum of one block
  int shared_bytes_per_sm = 0;
  int64_t l2_bytes = 0;
  int64_t memory_bytes = 0;

  // cp.async and mma.sync on bf16: what every kernel here stands on.
  bool is_supported() const { return compute_capability >= 80; }
  bool has_bulk_copy() const { return compute_capability >= 90; }
  bool has_wgmma() const { return compute_capability == 90; }
};

// Reads the limits of CUDA device `ordinal` and makes it the thread's current one. Exists in builds
// with CUDA only. Fails with cudaErrorNoKernelImageForDevice where this build has no code for it.
KernelError QueryDeviceLimits(int ordinal, DeviceLimits* limits);

}  // namespace behemoth::kernels
