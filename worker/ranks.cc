#include "worker/ranks.h"

#include <absl/strings/str_cat.h>

#include <utility>

#include "worker/parallel/faulty_group.h"
#include "worker/parallel/in_process_group.h"
#include "worker/parallel/nccl_group.h"
#include "worker/parallel/peer_group.h"

namespace behemoth::worker {
namespace {

Ranks OpenCpuRanks(int32_t size) {
  Ranks ranks{.on_cpu = true};
  for (int32_t rank = 0; rank < size; ++rank) ranks.devices.push_back(OpenCpu(size));
  if (size > 1) ranks.groups = MakeInProcessGroup(size);
  return ranks;
}

absl::StatusOr<Ranks> OpenCudaRanks(const RankOptions& options) {
  Ranks ranks;
  std::vector<int32_t> ordinals;
  for (int32_t rank = 0; rank < options.size; ++rank) {
    ordinals.push_back(options.device + rank);
    auto device = OpenCuda(ordinals.back());
    // Some GPUs and not all: no reason to go to the cpu.
    if (!device.ok() && rank > 0) {
      return absl::FailedPreconditionError(
          absl::StrCat("tensor-parallel-size: rank ", rank, ": ", device.status().message()));
    }
    if (!device.ok()) return device.status();
    ranks.devices.push_back(*std::move(device));
  }
  if (options.size == 1) return ranks;
  absl::StatusOr<std::vector<std::unique_ptr<RankGroup>>> groups =
      std::vector<std::unique_ptr<RankGroup>>();
  if (options.all_reduce == "auto") groups = MakePeerGroup(ordinals);
  if (groups.ok() && groups->empty()) {
    groups = MakeNcclGroup({.library = options.nccl_library, .ordinals = ordinals});
  }
  if (!groups.ok()) return groups.status();
  ranks.groups = *std::move(groups);
  return ranks;
}

absl::StatusOr<Ranks> OpenDevices(const RankOptions& options) {
  if (options.backend == "cpu") return OpenCpuRanks(options.size);
  absl::StatusOr<Ranks> ranks = OpenCudaRanks(options);
  const bool absent = absl::IsUnimplemented(ranks.status()) || absl::IsUnavailable(ranks.status());
  if (options.backend != "auto" || !absent) return ranks;
  Ranks cpu = OpenCpuRanks(options.size);
  cpu.why_not_cuda = std::string(ranks.status().message());
  return cpu;
}

}  // namespace

std::vector<RankPlace> Ranks::places() const {
  std::vector<RankPlace> places;
  for (size_t rank = 0; rank < devices.size(); ++rank) {
    places.push_back({devices[rank].get(), groups.empty() ? nullptr : groups[rank].get()});
  }
  return places;
}

absl::StatusOr<Ranks> OpenRanks(const RankOptions& options) {
  absl::StatusOr<Ranks> ranks = OpenDevices(options);
  if (!ranks.ok() || options.test_fault.empty()) return ranks;
  const absl::StatusOr<RankFault> fault = ParseRankFault(options.test_fault);
  if (!fault.ok()) return fault.status();
  const auto rank = static_cast<size_t>(fault->rank);
  if (rank >= ranks->groups.size()) {
    return absl::InvalidArgumentError("a rank fault needs that rank of several");
  }
  ranks->groups[rank] = WithFault(std::move(ranks->groups[rank]), *fault);
  return ranks;
}

}  // namespace behemoth::worker
