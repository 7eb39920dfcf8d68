// The three matrix products of prefill attention as wgmma, bf16 in, fp32 out, operands in panels of
// kv_layout.h (128-byte swizzle; a panel begins at a multiple of 1,024 bytes).
// Descriptor: PTX ISA, "Matrix descriptor": address / 16 | leading / 16 << 16 | stride / 16 << 32 |
// swizzle << 62 (1 = 128 bytes).
// sm_90a only; elsewhere the functions are empty and never called.
#pragma once

#include <cstdint>

#include "kernels/common/warpgroup.cuh"
#include "kernels/paged_attention/kv_layout.h"

namespace behemoth::kernels::ptx {

inline constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
inline constexpr uint64_t kEightRows = uint64_t{8 * kPanelRowBytes / 16} << 32;  // the stride

// [rows][64 columns] with the product's sum along the columns: Q and K. Steps of 16 columns are 32
// bytes apart. The leading offset is not used.
__device__ inline uint64_t RowDescriptor(uint32_t shared) {
  return kSwizzle128 | kEightRows | uint64_t{1} << 16 | ((shared & 0x3ffffu) >> 4);
}
// [16 rows][64 or 128 columns] with the sum along the rows: V. Panels of 64 columns lie one after
// the other; steps of 16 rows are 2,048 bytes apart.
__device__ inline uint64_t ColumnDescriptor(uint32_t shared) {
  return kSwizzle128 | kEightRows | uint64_t{kPanelBytes / 16} << 16 | ((shared & 0x3ffffu) >> 4);
}

// Tells the compiler that the registers change here: reads stay behind a wait, writes before a
// product.
template <int kCount>
__device__ inline void PinRegisters(float (&d)[kCount][4]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    asm volatile("" : "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])::"memory");
  }
}
template <int kCount>
__device__ inline void PinRegisters(uint32_t (&a)[kCount][4]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    asm volatile("" : "+r"(a[i][0]), "+r"(a[i][1]), "+r"(a[i][2]), "+r"(a[i][3])::"memory");
  }
}

#define BEHEMOTH_ACC4(i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])

// d = a * b^T, or d += where `adds` is not 0: a [64, 16] and b [128, 16] by RowDescriptor.
__device__ inline void WgmmaScores(float (&d)[16][4], uint64_t a, uint64_t b, uint32_t adds) {
#ifdef BEHEMOTH_WGMMA
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,"
      "%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,"
      "%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
      "}, %64, %65, p, 1, 1, 0, 0;\n}\n"
      : BEHEMOTH_ACC4(0), BEHEMOTH_ACC4(1), BEHEMOTH_ACC4(2), BEHEMOTH_ACC4(3), BEHEMOTH_ACC4(4),
        BEHEMOTH_ACC4(5), BEHEMOTH_ACC4(6), BEHEMOTH_ACC4(7), BEHEMOTH_ACC4(8), BEHEMOTH_ACC4(9),
        BEHEMOTH_ACC4(10), BEHEMOTH_ACC4(11), BEHEMOTH_ACC4(12), BEHEMOTH_ACC4(13),
        BEHEMOTH_ACC4(14), BEHEMOTH_ACC4(15)
      : "l"(a), "l"(b), "r"(adds));
#endif
}
// d += a * b: a [64, 16] from registers, b [16, 128] or [16, 64] by ColumnDescriptor.
__device__ inline void WgmmaValues(float (&d)[16][4], const uint32_t (&a)[4], uint64_t b) {
#ifdef BEHEMOTH_WGMMA
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,"
      "%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,"
      "%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
      "}, {%64,%65,%66,%67}, %68, 1, 1, 1, 1;"
      : BEHEMOTH_ACC4(0), BEHEMOTH_ACC4(1), BEHEMOTH_ACC4(2), BEHEMOTH_ACC4(3), BEHEMOTH_ACC4(4),
        BEHEMOTH_ACC4(5), BEHEMOTH_ACC4(6), BEHEMOTH_ACC4(7), BEHEMOTH_ACC4(8), BEHEMOTH_ACC4(9),
        BEHEMOTH_ACC4(10), BEHEMOTH_ACC4(11), BEHEMOTH_ACC4(12), BEHEMOTH_ACC4(13),
        BEHEMOTH_ACC4(14), BEHEMOTH_ACC4(15)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
#endif
}
__device__ inline void WgmmaValues(float (&d)[8][4], const uint32_t (&a)[4], uint64_t b) {
#ifdef BEHEMOTH_WGMMA
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
      "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,"
      "%23,%24,%25,%26,%27,%28,%29,%30,%31"
      "}, {%32,%33,%34,%35}, %36, 1, 1, 1, 1;"
      : BEHEMOTH_ACC4(0), BEHEMOTH_ACC4(1), BEHEMOTH_ACC4(2), BEHEMOTH_ACC4(3), BEHEMOTH_ACC4(4),
        BEHEMOTH_ACC4(5), BEHEMOTH_ACC4(6), BEHEMOTH_ACC4(7)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
#endif
}
#undef BEHEMOTH_ACC4

}  // namespace behemoth::kernels::ptx
