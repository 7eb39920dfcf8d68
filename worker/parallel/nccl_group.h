// Ranks that are GPUs of one host, joined by NCCL (docs.nvidia.com/deeplearning/nccl, 2.18 and
// newer). The library is loaded when the group is made and not before: one GPU needs none.
//
// Bits. Every rank gets the same; every run too. With two ranks a sum has one order. With more,
// NCCL chooses its algorithm by size and cuts a message by place, so an element's order of
// additions can depend on what else is in the message.
// Thread: as RankGroup. NVLink multicast is off: NCCL_NVLS_ENABLE=0 is set for this process.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "worker/parallel/rank_group.h"

namespace behemoth::worker {

struct NcclOptions {
  std::string library = "libnccl.so.2";  // a name for the loader, or a path
  std::vector<int32_t> ordinals;         // the GPU of each rank
};

// Joins them, connects them and has them add: when this returns, sums are right.
// FAILED_PRECONDITION: no such library, or too old, naming it and its version. UNIMPLEMENTED: this
// build has no CUDA. INTERNAL: NCCL's own error.
absl::StatusOr<std::vector<std::unique_ptr<RankGroup>>> MakeNcclGroup(const NcclOptions& options);

}  // namespace behemoth::worker
