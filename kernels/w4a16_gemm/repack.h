// From the checkpoint's layout to the packed one (packed_layout.h).
#pragma once

#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/kernel_error.h"
#include "kernels/common/launch_context.h"
#include "kernels/w4a16_gemm/packed_layout.h"

namespace behemoth::kernels {

// An int4 matrix as compressed-tensors stores it ("pack-quantized").
struct Int4Source {
  const uint32_t* weight = nullptr;  // [n, k / 8]: column 8 i + j at bits 4 j of word i, unsigned
  const bf16* scale = nullptr;       // [n, k / group_columns]
  // [n, k / group_columns], values 0..16 (GPTQ's first format stores zero - 1, so 16 exists);
  // null: symmetric, zero is 8
  const uint8_t* zero_point = nullptr;
  int n = 0;                       // any; a multiple of 16 when interleaved
  int k = 0;                       // a multiple of 128
  bool interleave_halves = false;  // rows are [gate; up], see SourceRow()
  int group_columns = 128;         // 128, 64 or 32; larger groups: repeat the scales
  // Without zero points a scale must be below kScaleLimit. Where the scales are (host or device):
  // set to 1 if one is not, else left alone; null: RepackInt4 refuses them, LaunchRepackInt4 packs
  // infinities.
  uint32_t* too_large = nullptr;
};

struct Bf16Source {
  const bf16* weight = nullptr;  // [n, k]
  int n = 0;                     // any
  int k = 0;                     // a multiple of 32
  bool interleave_halves = false;
};

constexpr WeightKind KindOf(const Int4Source& source) {
  const bool zeros = source.zero_point != nullptr;
  switch (source.group_columns) {
    case 32:
      return zeros ? WeightKind::kInt4ZeroPointGroup32 : WeightKind::kInt4Group32;
    case 64:
      return zeros ? WeightKind::kInt4ZeroPointGroup64 : WeightKind::kInt4Group64;
    default:
      return zeros ? WeightKind::kInt4ZeroPoint : WeightKind::kInt4;
  }
}

// Writes PackedBytes(...) bytes to `packed` (4-byte aligned). Host memory on both sides.
KernelError RepackInt4(const Int4Source& source, void* packed);
KernelError RepackBf16(const Bf16Source& source, void* packed);

// The same on the device: all pointers are device memory, the work is enqueued. CUDA builds only.
KernelError LaunchRepackInt4(const Int4Source& source, void* packed, const LaunchContext& context);
KernelError LaunchRepackBf16(const Bf16Source& source, void* packed, const LaunchContext& context);

}  // namespace behemoth::kernels
