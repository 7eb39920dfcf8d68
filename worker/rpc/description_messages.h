// What GetStatus says that does not change while the process lives.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "behemoth/worker/v1/worker.pb.h"
#include "worker/engine/mailbox.h"
#include "worker/runner/model_loader.h"

namespace behemoth::worker {

struct DeviceDescription {
  std::string name;
  uint64_t memory_bytes = 0;
  uint64_t planned_bytes = 0;
};

struct WorkerDescription {
  std::vector<std::string> served_names;
  ModelDescription model;
  std::string tokenizer_fingerprint;  // empty = none, or not to be checked
  RunnerLimits limits;
  MailboxLimits queue;
  std::vector<DeviceDescription> devices;  // rank i's is element i
  std::string build;
};

v1::GetStatusResponse ToMessage(const WorkerDescription& description);

}  // namespace behemoth::worker
