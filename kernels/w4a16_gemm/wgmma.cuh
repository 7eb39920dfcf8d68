// wgmma m64nNk16, bf16, A from registers, B [k / 8][N][8] in shared memory without swizzle:
// core matrices of 8 tokens x 16 bytes, N * 16 bytes apart along k, 128 bytes apart along tokens.
// sm_90a only; elsewhere the functions are empty and never called.
#pragma once

#include <cstdint>

#include "kernels/common/warpgroup.cuh"

namespace behemoth::kernels::ptx {

template <int kTokens>
__device__ inline uint64_t TokenDescriptor(uint32_t shared) {
  constexpr uint64_t kAlongK = kTokens * 16 / 16, kAlongTokens = 128 / 16;
  return uint64_t{(shared & 0x3ffffu) >> 4} | kAlongK << 16 | kAlongTokens << 32;
}

#define BEHEMOTH_ACC4(i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])

__device__ inline void Wgmma(float (&d)[2][4], const uint32_t (&a)[4], uint64_t b) {
#ifdef BEHEMOTH_WGMMA
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7},"
      " {%8,%9,%10,%11}, %12, 1, 1, 1, 0;"
      : BEHEMOTH_ACC4(0), BEHEMOTH_ACC4(1)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
#endif
}
__device__ inline void Wgmma(float (&d)[4][4], const uint32_t (&a)[4], uint64_t b) {
#ifdef BEHEMOTH_WGMMA
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,"
      "%11,%12,%13,%14,%15}, {%16,%17,%18,%19}, %20, 1, 1, 1, 0;"
      : BEHEMOTH_ACC4(0), BEHEMOTH_ACC4(1), BEHEMOTH_ACC4(2), BEHEMOTH_ACC4(3)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
#endif
}
__device__ inline void Wgmma(float (&d)[8][4], const uint32_t (&a)[4], uint64_t b) {
#ifdef BEHEMOTH_WGMMA
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,"
      "%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31},"
      " {%32,%33,%34,%35}, %36, 1, 1, 1, 0;"
      : BEHEMOTH_ACC4(0), BEHEMOTH_ACC4(1), BEHEMOTH_ACC4(2), BEHEMOTH_ACC4(3), BEHEMOTH_ACC4(4),
        BEHEMOTH_ACC4(5), BEHEMOTH_ACC4(6), BEHEMOTH_ACC4(7)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
#endif
}
__device__ inline void Wgmma(float (&d)[10][4], const uint32_t (&a)[4], uint64_t b) {
#ifdef BEHEMOTH_WGMMA
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n80k16.f32.bf16.bf16 {"
      "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,"
      "%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39},"
      " {%40,%41,%42,%43}, %44, 1, 1, 1, 0;"
      : BEHEMOTH_ACC4(0), BEHEMOTH_ACC4(1), BEHEMOTH_ACC4(2), BEHEMOTH_ACC4(3), BEHEMOTH_ACC4(4),
        BEHEMOTH_ACC4(5), BEHEMOTH_ACC4(6), BEHEMOTH_ACC4(7), BEHEMOTH_ACC4(8), BEHEMOTH_ACC4(9)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
#endif
}
__device__ inline void Wgmma(float (&d)[12][4], const uint32_t (&a)[4], uint64_t b) {
#ifdef BEHEMOTH_WGMMA
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n96k16.f32.bf16.bf16 {"
      "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,"
      "%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,"
      "%42,%43,%44,%45,%46,%47},"
      " {%48,%49,%50,%51}, %52, 1, 1, 1, 0;"
      : BEHEMOTH_ACC4(0), BEHEMOTH_ACC4(1), BEHEMOTH_ACC4(2), BEHEMOTH_ACC4(3), BEHEMOTH_ACC4(4),
        BEHEMOTH_ACC4(5), BEHEMOTH_ACC4(6), BEHEMOTH_ACC4(7), BEHEMOTH_ACC4(8), BEHEMOTH_ACC4(9),
        BEHEMOTH_ACC4(10), BEHEMOTH_ACC4(11)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
#endif
}
__device__ inline void Wgmma(float (&d)[16][4], const uint32_t (&a)[4], uint64_t b) {
#ifdef BEHEMOTH_WGMMA
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,"
      "%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,"
      "%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,"
      "%62,%63},"
      " {%64,%65,%66,%67}, %68, 1, 1, 1, 0;"
      : BEHEMOTH_ACC4(0), BEHEMOTH_ACC4(1), BEHEMOTH_ACC4(2), BEHEMOTH_ACC4(3), BEHEMOTH_ACC4(4),
        BEHEMOTH_ACC4(5), BEHEMOTH_ACC4(6), BEHEMOTH_ACC4(7), BEHEMOTH_ACC4(8), BEHEMOTH_ACC4(9),
        BEHEMOTH_ACC4(10), BEHEMOTH_ACC4(11), BEHEMOTH_ACC4(12), BEHEMOTH_ACC4(13),
        BEHEMOTH_ACC4(14), BEHEMOTH_ACC4(15)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
#endif
}
#undef BEHEMOTH_ACC4

}  // namespace behemoth::kernels::ptx
