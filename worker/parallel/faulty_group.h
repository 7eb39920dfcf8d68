// A rank that fails at a chosen moment, for tests of what the others and the process then do.
#pragma once

#include <absl/status/statusor.h>

#include <memory>
#include <string>

#include "worker/parallel/rank_group.h"

namespace behemoth::worker {

struct RankFault {
  int32_t rank = 0;
  bool hangs = false;      // for good, whatever Abort says; else the collective fails
  int64_t collective = 0;  // the first one that does, counted from 0
};

// "RANK:error:COLLECTIVE" or "RANK:hang:COLLECTIVE".
absl::StatusOr<RankFault> ParseRankFault(const std::string& text);

// `group` with the fault.
std::unique_ptr<RankGroup> WithFault(std::unique_ptr<RankGroup> group, const RankFault& fault);

}  // namespace behemoth::worker
