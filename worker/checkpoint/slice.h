// Parts of a projection, for ranks that share one: some of its outputs, or some of its inputs. What
// is still in its file stays there; only the part will be read.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>

#include "worker/checkpoint/linear_weights.h"

namespace behemoth::worker {

struct Interval {
  int32_t first = 0;
  int32_t count = 0;
};

// Rows `outputs` of the weights. Weights that are still a seed stay one: another for each part.
LinearWeights OutputsOf(const LinearWeights& weights, Interval outputs);

// Columns `inputs` of the weights. They hold whole groups, or lie within one.
// UNIMPLEMENTED: not so, or an act-order whose groups take inputs from other parts too.
absl::StatusOr<LinearWeights> InputsOf(const LinearWeights& weights, Interval inputs);

// Whether InputsOf can cut groups of `group_size` (-1 = one group) into parts of `count` inputs.
bool CanCutInputs(int32_t group_size, int32_t count);

}  // namespace behemoth::worker
