// The first steps of a runner, before anybody waits for one: memory is touched, graphs are
// captured, kernels are loaded.
#pragma once

#include <absl/status/status.h>

#include "worker/runner/model_runner.h"

namespace behemoth::worker {

// A prefill as wide as a step may be, then decodes of 1, 2, 4, ... rows up to all sequences: the
// widths that a backend may record. Uses every slot and the first blocks, whose contents mean
// nothing yet. The runner's own errors: the device does not work.
absl::Status WarmUp(ModelRunner& runner);

}  // namespace behemoth::worker
