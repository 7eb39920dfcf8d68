// Ranks that are GPUs of one host and reach each other's memory: kernels sum and gather by
// themselves (kernels/all_reduce), in the order of the ranks, so a row's bits are its own at any
// number of ranks. No library, and no memory beside the backends' own.
//
// Thread: as RankGroup.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "worker/parallel/rank_group.h"

namespace behemoth::worker {

// `ordinals`: the GPU of each rank. Empty if some GPU does not reach another one's memory: then
// they need a library. UNIMPLEMENTED: this build has no CUDA. INTERNAL: CUDA's own error.
absl::StatusOr<std::vector<std::unique_ptr<RankGroup>>> MakePeerGroup(
    const std::vector<int32_t>& ordinals);

}  // namespace behemoth::worker
