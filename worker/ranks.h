// The devices that one model runs on, and what joins them: one rank, or --tensor-parallel-size of
// them. Devices and groups of one process; nothing here knows a model.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "worker/device/device.h"
#include "worker/parallel/rank_group.h"
#include "worker/runner/model_loader.h"

namespace behemoth::worker {

struct RankOptions {
  std::string backend = "auto";  // auto, cpu, cuda
  int32_t device = 0;            // cuda: rank 0's; the others follow
  int32_t size = 1;
  std::string nccl_library = "libnccl.so.2";
  // How GPUs add up: auto = out of each other's memory where all reach it, else nccl
  std::string all_reduce = "auto";
  std::string test_fault;  // empty, or parallel/faulty_group.h
};

struct Ranks {
  std::vector<std::unique_ptr<Device>> devices;    // rank i's is element i
  std::vector<std::unique_ptr<RankGroup>> groups;  // empty if there is one rank
  bool on_cpu = false;
  std::string why_not_cuda;  // auto: what is missing

  std::vector<RankPlace> places() const;
};

// auto: cuda, or the cpu where the build or the machine has no GPU. The device's errors; with
// several ranks those of the group too, which name what is missing.
absl::StatusOr<Ranks> OpenRanks(const RankOptions& options);

}  // namespace behemoth::worker
