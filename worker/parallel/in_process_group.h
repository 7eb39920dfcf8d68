// Ranks that are threads of this process over host memory: the CPU backend's group.
//
// A sum is taken in the order of the ranks, from rank 0 on, each addition rounded once.
#pragma once

#include <memory>
#include <vector>

#include "worker/parallel/rank_group.h"

namespace behemoth::worker {

// Rank i's end is element i. size >= 2.
std::vector<std::unique_ptr<RankGroup>> MakeInProcessGroup(int32_t size);

}  // namespace behemoth::worker
