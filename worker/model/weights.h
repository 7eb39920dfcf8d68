// A transformer's weights as handles of a backend, and the one place that knows the checkpoint's
// tensor names.
#pragma once

#include <absl/status/statusor.h>

#include <functional>
#include <string_view>
#include <vector>

#include "worker/checkpoint/weight_source.h"
#include "worker/device/backend.h"
#include "worker/device/device.h"
#include "worker/model/model_config.h"

namespace behemoth::worker {

struct LayerWeights {
  GainHandle attention_norm{};
  LinearHandle qkv{};  // q over k over v
  LinearHandle attention_out{};
  GainHandle mlp_norm{};
  LinearHandle gate_up{};  // gate over up
  LinearHandle down{};
};

struct TransformerWeights {
  TableHandle embedding{};
  std::vector<LayerWeights> layers;
  GainHandle final_norm{};
  LinearHandle head{};  // the embedding itself if tied
};

// How ranks share a projection: each has some of its outputs, or some of its inputs.
enum class Cut { kOutputs, kInputs };
// Of a module of this model.
Cut CutOf(std::string_view module);

// The same weights as shapes, for the memory plan; of `config`'s part, if it is one: UNIMPLEMENTED
// naming the module whose groups or order of inputs cannot be cut. Reads no more than act-order's
// input orders.
absl::StatusOr<ModelShape> ShapeOf(const ModelConfig& config,
                                   const QuantizationConfig& quantization, WeightSource& source);

// Reads and packs one layer at a time; `on_layer(done)` after each, `done` from 1 to the layers.
absl::StatusOr<TransformerWeights> LoadWeights(const ModelConfig& config, WeightSource& source,
                                               Backend& backend,
                                               const std::function<void(int32_t)>& on_layer);

}  // namespace behemoth::worker
