// The sum over the ranks of a tensor-parallel group, out of the peers' memory, added to the
// residual and normalised: all that stands between two matrix products of a rank, in one kernel.
//
// One shot: every rank reads every rank's part and adds them itself, in the order of the ranks, in
// fp32, rounded once with the residual. So all ranks get the same bits, in every run, and a row's
// bits depend on that row alone, whatever the number of rows.
//
// Meeting. The parts are written by a kernel before this one on each rank's stream. Block 0 of each
// rank then announces the launch's number in every peer's `flags`; all blocks wait for the numbers
// of all peers in their own. The number is counted on the device, so that a recorded graph can be
// replayed; all ranks launch the same sequence. A part may be written again by the kernel that
// follows the *next* sum: ranks that have announced that one have read this one. So a rank's parts
// lie in two buffers in turn.
//
// Limit: the link. A rank reads (ranks - 1) parts; two ranks move what any all-reduce must.
#pragma once

#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/kernel_error.h"
#include "kernels/common/launch_context.h"
#include "kernels/fused/fused.h"

namespace behemoth::kernels {

inline constexpr int kMaxRanks = 8;
// Of a rank's flags: one number a rank, the launches so far, the blocks of this one that know its
// own.
inline constexpr int kRankFlags = kMaxRanks + 2;

struct RankSumArgs {
  int rank = 0;
  int ranks = 0;                      // 2, 4, 8
  const bf16* parts[kMaxRanks] = {};  // of each rank, [rows, hidden]; 16-byte aligned
  uint32_t* flags[kMaxRanks] = {};    // of each rank, [kRankFlags], zero before the first launch
  const volatile int* aborted = nullptr;  // host memory that the device sees: not 0 = wait for none
  // residual += the sum; then the norm, as LaunchRmsNorm with the sum as its delta. No `delta`
  // itself; no gamma: no norm.
  RmsNormArgs row;
};

// Enqueues one kernel, on every rank. Errors: kInvalidArgument naming the field. A peer that does
// not come is waited for until `aborted` is set; the residual is then anything. CUDA builds only.
KernelError LaunchRankSum(const RankSumArgs& args, const LaunchContext& context);

namespace reference {
// Of one rank, with every rank's parts in host memory; flags are not looked at.
void RankSum(const RankSumArgs& args);
}  // namespace reference

}  // namespace behemoth::kernels
