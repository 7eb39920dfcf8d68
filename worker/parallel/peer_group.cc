#include "worker/parallel/peer_group.h"

#include <absl/synchronization/mutex.h>
#include <cuda_runtime.h>

#include <utility>

#include "worker/device/cuda/cuda_status.h"
#include "worker/device/cuda/memory.h"

namespace behemoth::worker {
namespace {

using cuda::FromCuda;

// What the ranks share.
struct Peers {
  PeerTable table;
  cuda::Memory flag;  // table.aborted's
  absl::Mutex mutex;
  absl::Status ended;  // guarded by mutex
};

class PeerGroup : public RankGroup {
 public:
  PeerGroup(int32_t rank, int32_t size, std::shared_ptr<Peers> peers)
      : RankGroup(rank, size), peers_(std::move(peers)) {}

  absl::Status AllReduce(void*, size_t, SumElement, CUstream_st*) override { return NotHere(); }
  absl::Status AllGather(const void*, size_t, void*, CUstream_st*) override { return NotHere(); }
  PeerTable* peers() override { return &peers_->table; }
  absl::Status AnnounceOnPeers() override {
    absl::MutexLock lock(&peers_->mutex);
    return peers_->ended;
  }
  void Abort(const absl::Status& why) override {
    absl::MutexLock lock(&peers_->mutex);
    if (!peers_->ended.ok()) return;
    peers_->ended = why;
    *peers_->table.aborted = 1;
  }

 private:
  static absl::Status NotHere() {
    return absl::FailedPreconditionError("these ranks sum and gather by kernels of their own");
  }

  const std::shared_ptr<Peers> peers_;
};

// Whether it does; then `from` may from now on.
absl::StatusOr<bool> Reaches(int32_t from, int32_t to) {
  int reaches = 0;
  absl::Status status =
      FromCuda(cudaDeviceCanAccessPeer(&reaches, from, to), "cudaDeviceCanAccessPeer");
  if (!status.ok()) return status;
  if (reaches == 0) return false;
  const cudaError_t enabled = cudaDeviceEnablePeerAccess(to, 0);
  if (enabled == cudaErrorPeerAccessAlreadyEnabled) {
    cudaGetLastError();  // no error: the next launch must not find it
    return true;
  }
  status = FromCuda(enabled, "cudaDeviceEnablePeerAccess");
  if (!status.ok()) return status;
  return true;
}

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<RankGroup>>> MakePeerGroup(
    const std::vector<int32_t>& ordinals) {
  std::vector<std::unique_ptr<RankGroup>> ranks;
  for (const int32_t from : ordinals) {
    absl::Status set = FromCuda(cudaSetDevice(from), "cudaSetDevice");
    if (!set.ok()) return set;
    for (const int32_t to : ordinals) {
      if (from == to) continue;
      const absl::StatusOr<bool> reaches = Reaches(from, to);
      if (!reaches.ok()) return reaches.status();
      if (!*reaches) return ranks;
    }
  }
  const auto peers = std::make_shared<Peers>();
  auto flag = cuda::Memory::Allocate(cuda::MemoryKind::kPinnedHost, sizeof(int));
  if (!flag.ok()) return flag.status();
  peers->flag = *std::move(flag);
  peers->table.aborted = static_cast<volatile int*>(peers->flag.data());
  *peers->table.aborted = 0;
  const auto size = static_cast<int32_t>(ordinals.size());
  for (int32_t rank = 0; rank < size; ++rank) {
    ranks.push_back(std::make_unique<PeerGroup>(rank, size, peers));
  }
  return ranks;
}

}  // namespace behemoth::worker
