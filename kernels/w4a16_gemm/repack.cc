#include "kernels/w4a16_gemm/repack.h"

#include "kernels/w4a16_gemm/packed_word.h"

namespace behemoth::kernels {

KernelError RepackInt4(const Int4Source& source, void* packed) {
  if (source.n < 1 || source.k < 1 || source.k % kInt4UnitColumns != 0) {
    return {kInvalidArgument, "RepackInt4: k is not a multiple of 128"};
  }
  if (kInt4UnitColumns / UnitGroups(KindOf(source)) != source.group_columns) {
    return {kInvalidArgument, "RepackInt4: group_columns is not 128, 64 or 32"};
  }
  if (source.interleave_halves && source.n % 16 != 0) {
    return {kInvalidArgument, "RepackInt4: interleaved n is not a multiple of 16"};
  }
  auto* words = static_cast<uint32_t*>(packed);
  const int64_t count = PackedBytes(KindOf(source), source.n, source.k) / 4;
  uint32_t too_large = 0;
  Int4Source checked = source;
  if (checked.too_large == nullptr) checked.too_large = &too_large;
  for (int64_t i = 0; i < count; ++i) words[i] = PackedInt4Word(checked, i);
  if (too_large != 0) return {kInvalidArgument, "RepackInt4: a scale is 0.5 or more"};
  return {};
}

KernelError RepackBf16(const Bf16Source& source, void* packed) {
  if (source.n < 1 || source.k < 1 || source.k % UnitColumns(WeightKind::kBf16) != 0) {
    return {kInvalidArgument, "RepackBf16: k is not a multiple of 32"};
  }
  if (source.interleave_halves && source.n % 16 != 0) {
    return {kInvalidArgument, "RepackBf16: interleaved n is not a multiple of 16"};
  }
  auto* words = static_cast<uint32_t*>(packed);
  const int64_t count = PackedBytes(WeightKind::kBf16, source.n, source.k) / 4;
  for (int64_t i = 0; i < count; ++i) words[i] = PackedBf16Word(source, i);
  return {};
}

}  // namespace behemoth::kernels
