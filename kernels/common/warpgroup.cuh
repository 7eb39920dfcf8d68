// What every kernel with wgmma needs beside the products themselves: ordering and register counts
// (PTX ISA, "Asynchronous warpgroup level matrix instructions", "setmaxnreg").
// sm_90a only; elsewhere the functions are empty and never called.
#pragma once

namespace behemoth::kernels::ptx {

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define BEHEMOTH_WGMMA 1
#endif

// A kernel with wgmma has no body in code that could not run it: it would take long to compile.
#if defined(BEHEMOTH_WGMMA) || !defined(__CUDA_ARCH__)
inline constexpr bool kHasWgmma = true;
#else
inline constexpr bool kHasWgmma = false;
#endif

__device__ inline void WgmmaFence() {
#ifdef BEHEMOTH_WGMMA
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}
__device__ inline void WgmmaCommit() {
#ifdef BEHEMOTH_WGMMA
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}
template <int kPending>
__device__ inline void WgmmaWait() {
#ifdef BEHEMOTH_WGMMA
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
#endif
}

// Moves registers between the warpgroups of a block; every warp of the warpgroup executes it.
template <int kRegisters>
__device__ inline void RaiseRegisters() {
#ifdef BEHEMOTH_WGMMA
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
#endif
}
template <int kRegisters>
__device__ inline void LowerRegisters() {
#ifdef BEHEMOTH_WGMMA
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
#endif
}

}  // namespace behemoth::kernels::ptx
