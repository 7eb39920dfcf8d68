#include "worker/parallel/nccl_group.h"

#include <absl/strings/str_cat.h>
#include <absl/synchronization/mutex.h>
#include <cuda_runtime.h>

#include <cstring>
#include <thread>
#include <utility>

#include "worker/device/cuda/cuda_status.h"
#include "worker/device/cuda/memory.h"
#include "worker/parallel/nccl_library.h"

namespace behemoth::worker {
namespace {

using cuda::FromCuda;

// What a rank is made of.
struct Seat {
  int32_t rank = 0, size = 0, ordinal = 0;
  ncclComm* comm = nullptr;
};

class NcclGroup : public RankGroup {
 public:
  NcclGroup(const Seat& seat, const NcclLibrary& nccl)
      : RankGroup(seat.rank, seat.size), ordinal_(seat.ordinal), nccl_(nccl), comm_(seat.comm) {}
  ~NcclGroup() override {
    absl::MutexLock lock(&mutex_);
    if (!aborted_.ok()) return;  // Abort's thread has it
    cudaSetDevice(ordinal_);
    nccl_.destroy(comm_);
  }

  absl::Status AllReduce(void* values, size_t count, SumElement element,
                         CUstream_st* stream) override {
    if (absl::Status alive = status(); !alive.ok()) return alive;
    const int type = element == SumElement::kFloat ? NcclLibrary::kFloat : NcclLibrary::kBfloat16;
    return nccl_.Check(
        nccl_.all_reduce(values, values, count, type, NcclLibrary::kSum, comm_, stream),
        "ncclAllReduce");
  }

  absl::Status AllGather(const void* part, size_t bytes, void* all, CUstream_st* stream) override {
    if (absl::Status alive = status(); !alive.ok()) return alive;
    return nccl_.Check(nccl_.all_gather(part, all, bytes, NcclLibrary::kBytes, comm_, stream),
                       "ncclAllGather");
  }

  // NCCL may be waiting in a call of the rank's thread, which its abort ends, and may take its time
  // about it: so no lock is held, and a thread of its own waits.
  void Abort(const absl::Status& why) override {
    {
      absl::MutexLock lock(&mutex_);
      if (!aborted_.ok()) return;
      aborted_ = why;
    }
    std::thread([ordinal = ordinal_, nccl = nccl_, comm = comm_] {
      cudaSetDevice(ordinal);
      nccl.abort(comm);
    }).detach();
  }

 private:
  absl::Status status() const {
    absl::MutexLock lock(&mutex_);
    return aborted_;
  }

  const int32_t ordinal_;
  const NcclLibrary nccl_;
  ncclComm* const comm_;
  mutable absl::Mutex mutex_;
  absl::Status aborted_;
};

// One GPU's end of the first sums.
struct Trial {
  cuda::Memory values;
  CUstream_st* stream = nullptr;
  ~Trial() {
    if (stream != nullptr) cudaStreamDestroy(stream);
  }
};

// A float's high half: 1, 2, 4, 8 are exact.
uint16_t Bfloat16Of(float value) {
  uint32_t bits;
  static_assert(sizeof(bits) == sizeof(value));
  std::memcpy(&bits, &value, sizeof(bits));
  return static_cast<uint16_t>(bits >> 16);
}

// NCCL connects GPUs when they first need it, once for each of its algorithms, and takes memory
// then: sums of several sizes now, so that no step waits for it and the memory plan sees it gone.
// Every rank gives ones, so every element is the number of ranks.
class FirstSums {
 public:
  FirstSums(const NcclLibrary& nccl, const std::vector<ncclComm*>& comms,
            const std::vector<int32_t>& ordinals)
      : nccl_(nccl), comms_(comms), ordinals_(ordinals), trials_(comms.size()) {}

  absl::Status Run() {
    for (const size_t count : {size_t{1} << 13, size_t{1} << 20, kMostCount}) {
      if (absl::Status summed = Sum(count); !summed.ok()) return summed;
    }
    return absl::OkStatus();
  }

  absl::Status Allocate() {
    for (size_t rank = 0; rank < trials_.size(); ++rank) {
      absl::Status status = FromCuda(cudaSetDevice(ordinals_[rank]), "cudaSetDevice");
      absl::StatusOr<cuda::Memory> memory =
          cuda::Memory::Allocate(cuda::MemoryKind::kDevice, kMostCount * sizeof(uint16_t));
      status.Update(memory.status());
      if (!status.ok()) return status;
      trials_[rank].values = *std::move(memory);
      status = FromCuda(cudaStreamCreateWithFlags(&trials_[rank].stream, cudaStreamNonBlocking),
                        "cudaStreamCreate");
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

 private:
  static constexpr size_t kMostCount = size_t{1} << 24;

  absl::Status Sum(size_t count) {
    const std::vector<uint16_t> ones(count, Bfloat16Of(1.0f));
    absl::Status status;
    for (const Trial& trial : trials_) {
      status.Update(FromCuda(cudaMemcpyAsync(trial.values.data(), ones.data(), 2 * count,
                                             cudaMemcpyHostToDevice, trial.stream),
                             "upload of ones"));
    }
    status.Update(nccl_.Check(nccl_.group_start(), "ncclGroupStart"));
    for (size_t rank = 0; rank < trials_.size() && status.ok(); ++rank) {
      void* const values = trials_[rank].values.data();
      status.Update(
          nccl_.Check(nccl_.all_reduce(values, values, count, NcclLibrary::kBfloat16,
                                       NcclLibrary::kSum, comms_[rank], trials_[rank].stream),
                      "ncclAllReduce"));
    }
    status.Update(nccl_.Check(nccl_.group_end(), "ncclGroupEnd"));
    if (!status.ok()) return status;
    std::vector<uint16_t> sums(count);
    const std::vector<uint16_t> wanted(count, Bfloat16Of(static_cast<float>(trials_.size())));
    for (size_t rank = 0; rank < trials_.size(); ++rank) {
      status = FromCuda(cudaStreamSynchronize(trials_[rank].stream), "the first sums over ranks");
      status.Update(FromCuda(
          cudaMemcpy(sums.data(), trials_[rank].values.data(), 2 * count, cudaMemcpyDeviceToHost),
          "read-back of sums"));
      if (!status.ok()) return status;
      if (sums != wanted) {
        return absl::InternalError(absl::StrCat("nccl: rank ", rank, " adds ones to another sum"));
      }
    }
    return absl::OkStatus();
  }

  const NcclLibrary& nccl_;
  const std::vector<ncclComm*>& comms_;
  const std::vector<int32_t>& ordinals_;
  std::vector<Trial> trials_;
};

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<RankGroup>>> MakeNcclGroup(const NcclOptions& options) {
  const absl::StatusOr<NcclLibrary> nccl = LoadNccl(options.library);
  if (!nccl.ok()) return nccl.status();
  const auto size = static_cast<int32_t>(options.ordinals.size());
  std::vector<ncclComm*> comms(options.ordinals.size(), nullptr);
  absl::Status joined =
      nccl->Check(nccl->init_all(comms.data(), size, options.ordinals.data()), "ncclCommInitAll");
  if (!joined.ok()) return joined;
  std::vector<std::unique_ptr<RankGroup>> ranks;
  for (int32_t rank = 0; rank < size; ++rank) {
    const auto at = static_cast<size_t>(rank);
    const Seat seat{.rank = rank, .size = size, .ordinal = options.ordinals[at], .comm = comms[at]};
    ranks.push_back(std::make_unique<NcclGroup>(seat, *nccl));
  }
  FirstSums first(*nccl, comms, options.ordinals);
  absl::Status summed = first.Allocate();
  if (summed.ok()) summed = first.Run();
  if (!summed.ok()) return summed;
  return ranks;
}

}  // namespace behemoth::worker
