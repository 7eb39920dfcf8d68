// Where weights come from: a checkpoint folder, or a seed. One tensor or projection per call, so
// that loading never holds more than one layer on the host. Values that need no change may be left
// in their file (stored.h): an error of reading them then comes from whoever does.
//
// Thread-compatible. Errors name the file and the tensor.
#pragma once

#include <absl/status/statusor.h>

#include <string>
#include <vector>

#include "worker/checkpoint/linear_weights.h"

namespace behemoth::worker {

class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // An unquantized tensor of exactly [rows, cols] (or [cols] if rows is 1), by its full name.
  virtual absl::StatusOr<DenseMatrix> ReadDense(const std::string& name, int32_t rows,
                                                int32_t cols) = 0;
  // The projection `module` ("model.layers.0.mlp.up_proj"), quantized or not.
  virtual absl::StatusOr<LinearWeights> ReadLinear(const std::string& module, int32_t out,
                                                   int32_t in) = 0;
  // Whether these projections, which share their input, also share its order (act-order: g_idx): a
  // device that takes them as one needs that.
  virtual absl::StatusOr<bool> ShareInputOrder(const std::vector<std::string>& /*modules*/,
                                               int32_t /*in*/) {
    return true;
  }
  // What a layer's fp8 keys or values are to be multiplied by, one for each KV head; empty = 1.
  // `name`: "model.layers.0.self_attn.k_scale".
  virtual absl::StatusOr<std::vector<float>> ReadKvScale(const std::string& /*name*/,
                                                         int32_t /*kv_heads*/) {
    return std::vector<float>();
  }
};

}  // namespace behemoth::worker
