#include "worker/runner/model_folder.h"

#include <absl/strings/str_cat.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "worker/checkpoint/json_fields.h"

namespace behemoth::worker {
namespace {

using Json = nlohmann::json;

// The section of config.json, else the quantize_config.json that AutoGPTQ leaves beside it.
absl::StatusOr<QuantizationConfig> ReadQuantization(const std::string& folder, const Json& config) {
  absl::StatusOr<QuantizationConfig> quantization = QuantizationConfig::Parse(config);
  if (!quantization.ok() || quantization->quantized()) return quantization;
  absl::StatusOr<Json> beside = ReadJsonObject(folder, "quantize_config.json");
  if (beside.ok()) return QuantizationConfig::ParseSection(*beside, config);
  if (absl::IsNotFound(beside.status())) return quantization;
  return beside.status();
}

std::optional<float> FloatOf(const std::optional<double>& value) {
  return value ? std::optional<float>(static_cast<float>(*value)) : std::nullopt;
}

// Defaults out of the sampler's ranges are refused: they would fail every request that is silent.
absl::Status ReadGenerationConfig(const std::string& folder, ModelDescription& description) {
  absl::StatusOr<Json> json = ReadJsonObject(folder, "generation_config.json");
  if (absl::IsNotFound(json.status())) return absl::OkStatus();
  if (!json.ok()) return json.status();
  JsonFields fields("generation_config.json", *json);
  GenerationDefaults& defaults = description.generation_defaults;
  defaults.temperature = FloatOf(fields.Number("temperature", 0, 100));
  defaults.top_p = FloatOf(fields.Number("top_p", 1e-9, 1));
  defaults.min_p = FloatOf(fields.Number("min_p", 0, 1));
  defaults.repetition_penalty = FloatOf(fields.Number("repetition_penalty", 1e-3, 1e3));
  const auto top_k = fields.Int("top_k", -1, std::numeric_limits<int32_t>::max());
  if (top_k) defaults.top_k = static_cast<int32_t>(*top_k);
  if (!fields.status().ok()) return fields.status();
  absl::StatusOr<std::vector<int32_t>> eos =
      ParseEosIds("generation_config.json", *json, description.vocabulary_size);
  if (!eos.ok()) return eos.status();
  if (!eos->empty()) description.eos_ids = *std::move(eos);
  return absl::OkStatus();
}

ModelDescription Describe(const ModelConfig& config, const QuantizationConfig& quantization) {
  ModelDescription description;
  description.architecture = config.architecture;
  description.parameters = config.parameters();
  description.hidden_size = config.hidden_size;
  description.layers = config.layers;
  description.attention_heads = config.attention_heads;
  description.kv_heads = config.kv_heads;
  description.head_dim = config.head_dim;
  description.intermediate_size = config.intermediate_size;
  description.vocabulary_size = config.vocabulary_size;
  description.context_tokens = config.context_tokens;
  description.quantization = quantization.Describe();
  description.eos_ids = config.eos_ids;
  return description;
}

}  // namespace

absl::StatusOr<ModelFolder> ReadModelFolder(const std::string& folder) {
  absl::StatusOr<Json> json = ReadJsonObject(folder, "config.json");
  if (!json.ok()) return json.status();
  absl::StatusOr<ModelConfig> config = ParseModelConfig(*json);
  if (!config.ok()) return config.status();
  absl::StatusOr<QuantizationConfig> quantization = ReadQuantization(folder, *json);
  if (!quantization.ok()) return quantization.status();
  ModelDescription description = Describe(*config, *quantization);
  absl::Status generation = ReadGenerationConfig(folder, description);
  if (!generation.ok()) return generation;
  // Replacing: bytes that are not UTF-8 were let in as text by no reader above.
  std::string text = json->dump(-1, ' ', false, Json::error_handler_t::replace);
  return ModelFolder{*std::move(config), *std::move(quantization), std::move(description),
                     std::move(text)};
}

}  // namespace behemoth::worker
