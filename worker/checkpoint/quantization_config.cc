#include "worker/checkpoint/quantization_config.h"

#include <absl/strings/str_cat.h>
#include <re2/re2.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "worker/checkpoint/json_fields.h"

namespace behemoth::worker {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxPatterns = 65536;  // llm-compressor spells `ignore` out per module
constexpr int64_t kMaxGroup = 1 << 20;

absl::Status NotServed(const std::string& key, const std::string& what) {
  return absl::UnimplementedError(absl::StrCat("quantization_config: ", key, ": ", what));
}

std::string Quoted(const std::string& text) { return absl::StrCat("'", text.substr(0, 64), "'"); }

absl::StatusOr<std::vector<ModulePattern>> Patterns(JsonFields& fields, const char* key) {
  std::vector<ModulePattern> patterns;
  const Json* list = fields.Array(key);
  if (list == nullptr) return patterns;
  if (list->size() > kMaxPatterns) fields.Refuse(key, "is too long");
  for (const Json& entry : *list) {
    if (!entry.is_string()) fields.Refuse(key, "must be a list of strings");
    if (!fields.status().ok()) return fields.status();
    absl::StatusOr<ModulePattern> pattern = ModulePattern::Make(key, entry.get<std::string>());
    if (!pattern.ok()) return pattern.status();
    patterns.push_back(*std::move(pattern));
  }
  return patterns;
}

// actorder is null, a name, or (old files) a boolean.
absl::StatusOr<bool> ActorderUsesGroups(const Json& weights) {
  const auto found = weights.find("actorder");
  if (found == weights.end() || found->is_null()) return false;
  if (found->is_boolean()) return found->get<bool>();
  const std::string name = found->is_string() ? found->get<std::string>() : "";
  if (name == "group" || name == "dynamic") return true;
  if (name == "weight" || name == "static") return false;
  return NotServed("weights.actorder", absl::StrCat(Quoted(name), " is not known"));
}

absl::StatusOr<LinearScheme> WeightScheme(const Json& weights) {
  JsonFields fields("quantization_config: weights", weights);
  const int64_t bits = fields.RequiredInt("num_bits", 1, 64);
  const std::string type = fields.String("type").value_or("int");
  const bool dynamic = fields.Bool("dynamic").value_or(false);
  const auto group_size = fields.Int("group_size", -1, kMaxGroup);
  const std::string strategy =
      fields.String("strategy").value_or(group_size.value_or(0) > 0 ? "group" : "channel");
  LinearScheme scheme;
  scheme.symmetric = fields.Bool("symmetric").value_or(true);
  if (!fields.status().ok()) return fields.status();
  if (type != "int" || bits != 4 || dynamic) {
    return NotServed("weights", absl::StrCat("only static int4 is served, not ", bits, " bits of ",
                                             Quoted(type), dynamic ? ", dynamic" : ""));
  }
  if (strategy == "group") {
    scheme.group_size = static_cast<int32_t>(group_size.value_or(0));
    if (scheme.group_size <= 0) {
      fields.Refuse("group_size", "must be positive for strategy 'group'");
      return fields.status();
    }
  } else if (strategy == "channel") {
    scheme.group_size = -1;
  } else {
    return NotServed("weights.strategy", absl::StrCat(Quoted(strategy), " is not served"));
  }
  const absl::StatusOr<bool> uses_g_idx = ActorderUsesGroups(weights);
  if (!uses_g_idx.ok()) return uses_g_idx.status();
  scheme.uses_g_idx = *uses_g_idx;
  return scheme;
}

absl::StatusOr<QuantizationGroup> ParseGroup(const std::string& name, const Json& json,
                                             const std::string& default_format) {
  const std::string where = absl::StrCat("quantization_config: ", name.substr(0, 64));
  if (!json.is_object()) return absl::InvalidArgumentError(where + ": must be an object");
  JsonFields fields(where, json);
  for (const char* key : {"input_activations", "output_activations"}) {
    if (fields.Object(key) != nullptr) {
      return NotServed(key, "activation quantization is not served");
    }
  }
  const std::string format = fields.String("format").value_or(default_format);
  if (format != "pack-quantized") {
    return NotServed("format", absl::StrCat(Quoted(format), " is not served"));
  }
  const Json* weights = fields.Object("weights");
  if (weights == nullptr) fields.Refuse("weights", "is missing");
  QuantizationGroup group;
  absl::StatusOr<std::vector<ModulePattern>> targets = Patterns(fields, "targets");
  if (!targets.ok()) return targets.status();
  group.targets = *std::move(targets);
  if (group.targets.empty()) fields.Refuse("targets", "is missing or empty");
  if (!fields.status().ok()) return fields.status();
  const absl::StatusOr<LinearScheme> scheme = WeightScheme(*weights);
  if (!scheme.ok()) return scheme.status();
  group.scheme = *scheme;
  return group;
}

bool IsEmptyOrAbsent(const Json& section, const char* key) {
  const auto found = section.find(key);
  return found == section.end() || found->is_null() || found->empty();
}

// sparsity_config and transform_config are also written to say that there is none.
bool SaysNothing(const Json& section, const char* key) {
  if (IsEmptyOrAbsent(section, key)) return true;
  const Json& value = section[key];
  return value.is_object() && IsEmptyOrAbsent(value, "config_groups") &&
         value.value("format", Json("dense")) == "dense";
}

// `dtype`, or `torch_dtype` as it was called until 2025.
std::optional<ElementType> ModelType(const Json& config) {
  for (const char* key : {"dtype", "torch_dtype"}) {
    const auto found = config.find(key);
    if (found == config.end()) continue;
    if (*found == "bfloat16") return ElementType::kBfloat16;
    if (*found == "float16") return ElementType::kFloat16;
  }
  return std::nullopt;
}

std::string GroupText(int32_t group_size) {
  return group_size < 0 ? "channel" : absl::StrCat("g", group_size);
}

}  // namespace

absl::StatusOr<ModulePattern> ModulePattern::Make(const std::string& key, const std::string& text) {
  ModulePattern pattern;
  pattern.text_ = text;
  if (!text.starts_with("re:")) return pattern;
  pattern.regex_ = std::make_shared<const RE2>(text.substr(3), RE2::Quiet);
  if (pattern.regex_->ok()) return pattern;
  return absl::InvalidArgumentError(absl::StrCat("quantization_config: ", key, ": ", Quoted(text),
                                                 ": ", pattern.regex_->error()));
}

bool ModulePattern::Matches(const std::string& module, const std::string& module_class) const {
  if (regex_ == nullptr) return text_ == module || text_ == module_class;
  return regex_->Match(module, 0, module.size(), RE2::ANCHOR_START, nullptr, 0);
}

absl::StatusOr<QuantizationConfig> QuantizationConfig::Parse(const Json& config) {
  JsonFields fields("config.json", config);
  for (const char* key : {"quantization_config", "compression_config"}) {
    if (const Json* section = fields.Object(key)) return ParseSection(*section, config);
  }
  if (!fields.status().ok()) return fields.status();
  return QuantizationConfig();
}

absl::StatusOr<QuantizationConfig> QuantizationConfig::ParseSection(const Json& section,
                                                                    const Json& config) {
  JsonFields fields("quantization_config", section);
  const bool has_groups = section.contains("config_groups");
  const std::string guess = has_groups                 ? "compressed-tensors"
                            : section.contains("bits") ? "gptq"
                                                       : "";
  const std::string method = fields.String("quant_method").value_or(guess);
  if (!fields.status().ok()) return fields.status();
  if (method == "compressed-tensors") return ParseCompressedTensors(section);
  if (method == "gptq") return ParseGptq(section, config);
  return NotServed("quant_method",
                   Quoted(method) + " is not served (compressed-tensors and gptq are)");
}

// Static scales of fp8 keys and values: one for a tensor or one for each head.
absl::Status QuantizationConfig::ParseKvScheme(const Json* section) {
  if (section == nullptr) return absl::OkStatus();
  JsonFields fields("quantization_config.kv_cache_scheme", *section);
  const auto is = [](const auto& value, const auto& only) { return !value || *value == only; };
  const std::string strategy = fields.String("strategy").value_or("tensor");
  const bool served = is(fields.Int("num_bits", 1, 64), 8) &&
                      is(fields.String("type"), std::string("float")) &&
                      is(fields.Bool("dynamic"), false) && is(fields.Bool("symmetric"), true) &&
                      (strategy == "tensor" || strategy == "attn_head");
  if (!fields.status().ok()) return fields.status();
  if (!served) {
    return NotServed(
        "kv_cache_scheme",
        "is not served (8-bit float, symmetric, not dynamic, by tensor or attn_head is)");
  }
  has_kv_scales_ = true;
  return absl::OkStatus();
}

absl::StatusOr<QuantizationConfig> QuantizationConfig::ParseCompressedTensors(const Json& section) {
  JsonFields fields("quantization_config", section);
  const std::string format = fields.String("format").value_or("pack-quantized");
  for (const char* key : {"sparsity_config", "transform_config"}) {
    if (!SaysNothing(section, key)) return NotServed(key, "is not served");
  }
  QuantizationConfig config;
  if (absl::Status bad = config.ParseKvScheme(fields.Object("kv_cache_scheme")); !bad.ok()) {
    return bad;
  }
  absl::StatusOr<std::vector<ModulePattern>> ignore = Patterns(fields, "ignore");
  if (!ignore.ok()) return ignore.status();
  config.ignore_ = *std::move(ignore);
  const Json* groups = fields.Object("config_groups");
  if (groups == nullptr) fields.Refuse("config_groups", "is missing");
  if (!fields.status().ok()) return fields.status();
  for (const auto& [name, json] : groups->items()) {
    absl::StatusOr<QuantizationGroup> group = ParseGroup(name, json, format);
    if (!group.ok()) return group.status();
    config.groups_.push_back(*std::move(group));
  }
  return config;
}

absl::StatusOr<QuantizationConfig> QuantizationConfig::ParseGptq(const Json& section,
                                                                 const Json& model) {
  JsonFields fields("quantization_config", section);
  const int64_t bits = fields.RequiredInt("bits", 1, 64);
  const std::string checkpoint_format =
      fields.String("checkpoint_format").value_or(fields.String("format").value_or("gptq"));
  const std::string pack_type = fields.String("pack_dtype").value_or("int32");
  QuantizationGroup group;
  group.scheme.group_size = static_cast<int32_t>(fields.RequiredInt("group_size", -1, kMaxGroup));
  group.scheme.symmetric = fields.Bool("sym").value_or(true);
  group.scheme.uses_g_idx = fields.Bool("desc_act").value_or(false);
  group.scheme.scale_type = ModelType(model);
  const bool quantized_head = fields.Bool("lm_head").value_or(false);
  if (fields.Bool("is_marlin_format").value_or(false)) {
    return NotServed("is_marlin_format", "weights permuted for one kernel are not served");
  }
  if (!IsEmptyOrAbsent(section, "dynamic")) return NotServed("dynamic", "is not served");
  if (group.scheme.group_size == 0) fields.Refuse("group_size", "must be -1 or positive");
  if (!fields.status().ok()) return fields.status();
  if (bits != 4) return NotServed("bits", absl::StrCat(bits, " is not served (4 is)"));
  if (pack_type != "int32") return NotServed("pack_dtype", Quoted(pack_type) + " is not served");
  if (checkpoint_format != "gptq" && checkpoint_format != "gptq_v2") {
    return NotServed("checkpoint_format", Quoted(checkpoint_format) + " is not served");
  }
  group.scheme.format = checkpoint_format == "gptq" ? PackFormat::kGptqV1 : PackFormat::kGptqV2;
  QuantizationConfig config;
  absl::StatusOr<ModulePattern> all = ModulePattern::Make("targets", "Linear");
  if (!all.ok()) return all.status();
  group.targets.push_back(*std::move(all));
  config.groups_.push_back(std::move(group));
  if (!quantized_head) {
    absl::StatusOr<ModulePattern> head = ModulePattern::Make("ignore", "lm_head");
    if (!head.ok()) return head.status();
    config.ignore_.push_back(*std::move(head));
  }
  return config;
}

std::optional<LinearScheme> QuantizationConfig::SchemeOf(const std::string& module) const {
  const auto matches = [&](const ModulePattern& pattern) {
    return pattern.Matches(module, "Linear");
  };
  if (std::any_of(ignore_.begin(), ignore_.end(), matches)) return std::nullopt;
  for (const QuantizationGroup& group : groups_) {
    if (std::any_of(group.targets.begin(), group.targets.end(), matches)) return group.scheme;
  }
  return std::nullopt;
}

std::string QuantizationConfig::Describe() const {
  if (groups_.empty()) return "none";
  const LinearScheme& scheme = groups_.front().scheme;
  const bool gptq = scheme.format != PackFormat::kPackQuantized;
  return absl::StrCat(gptq ? "gptq" : "pack-quantized", " int4 ", GroupText(scheme.group_size),
                      scheme.symmetric ? " symmetric" : " asymmetric",
                      !scheme.uses_g_idx ? ""
                      : gptq             ? " desc_act"
                                         : " g_idx");
}

}  // namespace behemoth::worker
