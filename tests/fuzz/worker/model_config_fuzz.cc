// config.json as text: whatever it holds, it is a config whose shapes fit or a refusal that says
// why, and the quantization answers for any module.
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "worker/checkpoint/json_fields.h"
#include "worker/checkpoint/quantization_config.h"
#include "worker/model/model_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace behemoth::worker;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto json = ParseJsonObject("config.json", text);
  if (!json.ok()) return 0;
  const auto config = ParseModelConfig(*json);
  if (config.ok()) {
    const bool fits =
        config->hidden_size > 0 && config->layers > 0 && config->kv_heads > 0 &&
        config->attention_heads % config->kv_heads == 0 &&
        config->rope_inverse_frequencies.size() == static_cast<size_t>(config->head_dim) / 2;
    if (!fits) __builtin_trap();
  } else if (config.status().message().empty()) {
    __builtin_trap();
  }
  const auto quantization = QuantizationConfig::Parse(*json);
  if (!quantization.ok()) return 0;
  for (const char* module : {"model.layers.0.mlp.up_proj", "lm_head", ""}) {
    const auto scheme = quantization->SchemeOf(module);
    if (scheme && scheme->group_size == 0) __builtin_trap();
  }
  if (quantization->Describe().empty()) __builtin_trap();
  return 0;
}
