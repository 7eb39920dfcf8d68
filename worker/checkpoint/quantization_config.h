// Which linears of a checkpoint are quantized, and how: `quantization_config` of config.json (or
// `compression_config`, its name in 2024, or a quantize_config.json beside it).
//
// Served: compressed-tensors "pack-quantized" int4 (group or channel strategy, symmetric or not,
// any actorder), GPTQ v1 and v2 int4 (with or without desc_act). All else is refused by name.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "worker/checkpoint/linear_weights.h"

namespace re2 {
class RE2;
}

namespace behemoth::worker {

enum class PackFormat { kPackQuantized, kGptqV1, kGptqV2 };

struct LinearScheme {
  PackFormat format = PackFormat::kPackQuantized;
  int32_t group_size = 128;  // -1 = all inputs are one group
  bool symmetric = true;
  bool uses_g_idx = false;  // actorder group or dynamic, desc_act
  // GPTQ: what scales are cast to before they are multiplied, the model's dtype. nullopt = not
  // cast.
  std::optional<ElementType> scale_type;
};

// An exact module name, a class name ("Linear"), or "re:" and a regular expression that must match
// at the start of the module's name, as Python's re.match does.
class ModulePattern {
 public:
  static absl::StatusOr<ModulePattern> Make(const std::string& key, const std::string& text);
  bool Matches(const std::string& module, const std::string& module_class) const;

 private:
  ModulePattern() = default;
  std::string text_;
  std::shared_ptr<const re2::RE2> regex_;  // linear time, whatever a hostile config holds
};

struct QuantizationGroup {
  std::vector<ModulePattern> targets;
  LinearScheme scheme;
};

class QuantizationConfig {
 public:
  // `config` is config.json; null sections mean an unquantized model.
  static absl::StatusOr<QuantizationConfig> Parse(const nlohmann::json& config);
  // `section` as quantize_config.json holds it, beside `config`.
  static absl::StatusOr<QuantizationConfig> ParseSection(const nlohmann::json& section,
                                                         const nlohmann::json& config);

  // The scheme of a linear by its full name ("model.layers.0.mlp.up_proj"); nullopt = as it is.
  // `ignore` wins over `targets`; of two groups the first that matches.
  std::optional<LinearScheme> SchemeOf(const std::string& module) const;
  bool quantized() const { return !groups_.empty(); }
  // kv_cache_scheme is present: every layer has self_attn.k_scale and v_scale.
  bool has_kv_scales() const { return has_kv_scales_; }
  // "pack-quantized int4 g128 symmetric", "gptq int4 g128 desc_act", "none".
  std::string Describe() const;

 private:
  static absl::StatusOr<QuantizationConfig> ParseCompressedTensors(const nlohmann::json& section);
  static absl::StatusOr<QuantizationConfig> ParseGptq(const nlohmann::json& section,
                                                      const nlohmann::json& model);
  absl::Status ParseKvScheme(const nlohmann::json* section);

  std::vector<QuantizationGroup> groups_;
  std::vector<ModulePattern> ignore_;
  bool has_kv_scales_ = false;
};

}  // namespace behemoth::worker
