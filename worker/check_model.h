// What `behemoth-worker --check-model DIR` says: what the folder holds, and whether it fits. Reads
// configuration and tensor headers, never the weights, so that an init container or an operator
// knows in seconds what a load would find in minutes.
#pragma once

#include <absl/status/statusor.h>

#include <string>

#include "worker/config.h"

namespace behemoth::worker {

// A report of a few lines. Errors as model_loader.h's and memory_budget.h's: they name the file and
// the key or tensor, or the numbers that do not fit. Not seen: a quantized tensor of a wrong shape
// or damaged bytes, which the load itself refuses.
absl::StatusOr<std::string> CheckModel(const Config& config);

}  // namespace behemoth::worker
