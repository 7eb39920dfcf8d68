// How the kernels of several ranks meet; the contract is RankMeeting's (all_reduce.h).
#pragma once

#include <type_traits>

#include "kernels/all_reduce/all_reduce.h"

namespace behemoth::kernels {

inline constexpr int kLaunches = kMaxRanks;     // of a rank's flags: launches so far
inline constexpr int kKnowing = kMaxRanks + 1;  // blocks of this one that have read that
inline constexpr int kSpinsPerLook = 1 << 12;   // between two looks at `aborted`, over PCIe

// The memory of other GPUs is in the scope of the system: PTX ISA, "memory consistency model".
// Stores, not atomics: PCIe has no atomics between GPUs.
__device__ inline void StoreRelease(uint32_t* at, uint32_t value) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(at), "r"(value) : "memory");
}
__device__ inline uint32_t LoadAcquire(const uint32_t* at) {
  uint32_t value;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(at) : "memory");
  return value;
}

// Numbers are compared as distances: they wrap after 4 billion launches.
__device__ inline bool HasCome(uint32_t seen, uint32_t number) {
  return static_cast<int32_t>(seen - number) >= 0;
}

// Returns when every rank's part may be read; called by all threads of all blocks, behind the wait
// for the predecessor, which wrote our part. The last block that has read the launch's number
// counts it, while the others go on.
template <int kRanks>
__device__ void Meet(const RankMeeting& meeting, int block, int blocks) {
  uint32_t* const own = meeting.flags[meeting.rank];
  const int peer = threadIdx.x;
  if (peer < kRanks && peer != meeting.rank) {
    const uint32_t number = *static_cast<volatile uint32_t*>(own + kLaunches) + 1;
    if (block == 0) StoreRelease(meeting.flags[peer] + meeting.rank, number);
    int spins = 0;
    while (!HasCome(LoadAcquire(own + peer), number)) {
      if (++spins % kSpinsPerLook == 0 && *meeting.aborted != 0) break;
    }
  }
  __syncthreads();
  const bool counts = threadIdx.x == blockDim.x - 1;
  if (!counts || atomicAdd(own + kKnowing, 1) != static_cast<uint32_t>(blocks - 1)) return;
  own[kKnowing] = 0;
  own[kLaunches] += 1;
}

// ---- Host ---------------------------------------------------------------------------------------

// What every launch asks of its meeting and of the ranks' parts.
template <typename Part>
KernelError CheckMeeting(const RankMeeting& meeting, const Part* const (&parts)[kMaxRanks]) {
  if (meeting.ranks != 2 && meeting.ranks != 4 && meeting.ranks != 8) {
    return {kInvalidArgument, "rank meeting: ranks"};
  }
  if (meeting.rank < 0 || meeting.rank >= meeting.ranks) {
    return {kInvalidArgument, "rank meeting: rank"};
  }
  if (meeting.aborted == nullptr) return {kInvalidArgument, "rank meeting: aborted"};
  for (int rank = 0; rank < meeting.ranks; ++rank) {
    if (parts[rank] == nullptr || meeting.flags[rank] == nullptr) {
      return {kInvalidArgument, "rank meeting: parts, flags"};
    }
  }
  return {};
}

// launch(std::integral_constant<int, ranks>) of a checked meeting.
template <typename LaunchFor>
KernelError ForRanks(int ranks, LaunchFor launch) {
  if (ranks == 2) return launch(std::integral_constant<int, 2>());
  if (ranks == 4) return launch(std::integral_constant<int, 4>());
  return launch(std::integral_constant<int, 8>());
}

}  // namespace behemoth::kernels
