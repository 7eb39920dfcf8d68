// The packed int4 formats on disk, each turned into Int4Weights: a difference of layout, not of
// value. Byte layouts: compressed-tensors' pack-quantized (weight_packed [out, in/8], nibbles along
// the inputs), GPTQ v1 and v2 (qweight [in/8, out], zero points along the outputs).
#pragma once

#include <absl/status/statusor.h>

#include <string>

#include "worker/checkpoint/linear_weights.h"
#include "worker/checkpoint/quantization_config.h"

namespace behemoth::worker {

class Checkpoint;

absl::StatusOr<LinearWeights> ReadInt4(const Checkpoint& checkpoint, const LinearScheme& scheme,
                                       const std::string& module, int32_t out, int32_t in);

}  // namespace behemoth::worker
