// A build without CUDA: the cpu backend is all there is.
#include "worker/device/device.h"
#include "worker/parallel/nccl_group.h"
#include "worker/parallel/peer_group.h"

namespace behemoth::worker {

absl::StatusOr<std::unique_ptr<Device>> OpenCuda(int32_t) {
  return absl::UnimplementedError("backend: this build has the cpu backend only");
}

absl::StatusOr<std::vector<std::unique_ptr<RankGroup>>> MakeNcclGroup(const NcclOptions&) {
  return absl::UnimplementedError("nccl: this build has the cpu backend only");
}

absl::StatusOr<std::vector<std::unique_ptr<RankGroup>>> MakePeerGroup(const std::vector<int32_t>&) {
  return absl::UnimplementedError("peers: this build has the cpu backend only");
}

}  // namespace behemoth::worker
