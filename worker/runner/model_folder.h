// What a model folder says before its weights are read: config.json, generation_config.json, the
// quantization. Errors as in model_loader.h.
#pragma once

#include <absl/status/statusor.h>

#include <string>

#include "worker/checkpoint/quantization_config.h"
#include "worker/model/model_config.h"
#include "worker/runner/model_loader.h"

namespace behemoth::worker {

struct ModelFolder {
  ModelConfig config;
  QuantizationConfig quantization;
  ModelDescription description;  // all but the fingerprint and what options decide
  std::string config_text;       // for the fingerprint
};

absl::StatusOr<ModelFolder> ReadModelFolder(const std::string& folder);

}  // namespace behemoth::worker
