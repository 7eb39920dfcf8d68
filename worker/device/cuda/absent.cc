// A build without CUDA: the cpu backend is all there is.
#include "worker/device/device.h"

namespace behemoth::worker {

absl::StatusOr<std::unique_ptr<Device>> OpenCuda(int32_t) {
  return absl::UnimplementedError("backend: this build has the cpu backend only");
}

}  // namespace behemoth::worker
