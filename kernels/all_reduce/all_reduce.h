// What the ranks of a tensor-parallel group do together, out of each other's memory and without a
// library: the sum of their parts, added to the residual and normalised, all that stands between
// two matrix products; and the gathering of their parts of the logits.
//
// One shot: every rank reads every rank's part. A sum is taken in the order of the ranks, in fp32,
// rounded once with the residual. So all ranks get the same bits, in every run, and a row's bits
// depend on that row alone, whatever the number of rows.
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
// Of a rank's flags: what each rank has announced here, the launches so far, the blocks of this one
// that know its number.
inline constexpr int kRankFlags = kMaxRanks + 2;

// How ranks meet. The parts are written by a kernel before this one on each rank's stream. Block 0
// of each rank then announces the launch's number in every peer's flags; all blocks wait for the
// peers' in their own. The number is counted on the device, so that a recorded graph can be
// replayed; all ranks launch the same sequence of these kernels. A part may be written again by
// what follows the *next* meeting: ranks that have announced that one have read this one. So a
// rank's parts lie in two buffers in turn.
struct RankMeeting {
  int rank = 0;
  int ranks = 0;                    // 2, 4, 8
  uint32_t* flags[kMaxRanks] = {};  // of each rank, [kRankFlags], zero before the first launch
  const volatile int* aborted = nullptr;  // host memory that the device sees: not 0 = wait for none
};

struct RankSumArgs {
  RankMeeting meeting;
  const bf16* parts[kMaxRanks] = {};  // of each rank, [rows, hidden]; 16-byte aligned
  // residual += the sum; then the norm, as LaunchRmsNorm with the sum as its delta. No `delta`
  // itself; no gamma: no norm.
  RmsNormArgs row;
};

// out[row, rank * cols + c] = part of that rank [row, c].
struct RankGatherArgs {
  RankMeeting meeting;
  const float* parts[kMaxRanks] = {};  // of each rank, [rows, cols]; 16-byte aligned
  float* out = nullptr;                // [rows, stride]
  int rows = 0;
  int cols = 0;    // % 4 == 0
  int stride = 0;  // of out, % 4 == 0
};

// Each enqueues one kernel, on every rank. Errors: kInvalidArgument naming the field. A peer that
// does not come is waited for until `aborted` is set; what is written is then anything. CUDA builds
// only.
KernelError LaunchRankSum(const RankSumArgs& args, const LaunchContext& context);
KernelError LaunchRankGather(const RankGatherArgs& args, const LaunchContext& context);

namespace reference {
// Of one rank, with every rank's parts in host memory; flags are not looked at.
void RankSum(const RankSumArgs& args);
void RankGather(const RankGatherArgs& args);
}  // namespace reference

}  // namespace behemoth::kernels
