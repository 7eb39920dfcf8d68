#include "worker/model/model_config.h"

#include <absl/strings/str_cat.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "worker/checkpoint/json_fields.h"

namespace behemoth::worker {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxSize = 1 << 20;  // ten times the widest model known
constexpr int64_t kMaxContext = 1 << 24;
constexpr double kPi = 3.14159265358979323846;

absl::Status NotServed(const std::string& key, const std::string& what) {
  return absl::UnimplementedError(absl::StrCat("config.json: ", key, ": ", what));
}

// transformers 5 puts rope_theta and the scaling into rope_parameters; earlier files have the two
// keys apart, and some have rope_theta inside rope_scaling.
const Json& RopeObject(JsonFields& fields) {
  static const Json kNone = Json::object();
  if (const Json* parameters = fields.Object("rope_parameters")) return *parameters;
  if (const Json* scaling = fields.Object("rope_scaling")) return *scaling;
  return kNone;
}

// Llama 3.1: long wavelengths are slowed by `factor`, short ones kept, a smooth step between.
struct Llama3Scaling {
  double factor, low_frequency_factor, high_frequency_factor, original_context;

  double Apply(double frequency) const {
    const double wavelength = 2 * kPi / frequency;
    if (wavelength < original_context / high_frequency_factor) return frequency;
    if (wavelength > original_context / low_frequency_factor) return frequency / factor;
    const double smooth = (original_context / wavelength - low_frequency_factor) /
                          (high_frequency_factor - low_frequency_factor);
    return (1 - smooth) * frequency / factor + smooth * frequency;
  }
};

absl::StatusOr<std::vector<float>> RopeFrequencies(JsonFields& fields, int32_t head_dim) {
  const Json& object = RopeObject(fields);
  JsonFields rope("config.json: rope_parameters", object);
  const double theta = fields.Number("rope_theta", 1, 1e12)
                           .value_or(rope.Number("rope_theta", 1, 1e12).value_or(10000.0));
  const std::string type =
      rope.String("rope_type").value_or(rope.String("type").value_or("default"));
  // The reference forms theta^(2i/d) in float32.
  std::vector<float> frequencies(head_dim / 2);
  for (int32_t i = 0; i < head_dim / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    frequencies[i] = 1.0f / std::pow(static_cast<float>(theta), exponent);
  }
  if (type == "linear") {
    const double factor = rope.Number("factor", 1, 1e6).value_or(1);
    for (float& frequency : frequencies) frequency /= static_cast<float>(factor);
  } else if (type == "llama3") {
    const Llama3Scaling scaling = {
        .factor = rope.Number("factor", 1, 1e6).value_or(8),
        .low_frequency_factor = rope.Number("low_freq_factor", 1e-6, 1e6).value_or(1),
        .high_frequency_factor = rope.Number("high_freq_factor", 1e-6, 1e6).value_or(4),
        .original_context =
            rope.Number("original_max_position_embeddings", 1, kMaxContext).value_or(8192)};
    if (scaling.high_frequency_factor <= scaling.low_frequency_factor) {
      rope.Refuse("high_freq_factor", "must be above low_freq_factor");
    }
    for (float& frequency : frequencies) {
      frequency = static_cast<float>(scaling.Apply(frequency));
    }
  } else if (type != "default") {
    return NotServed("rope_scaling", absl::StrCat("type '", type.substr(0, 32),
                                                  "' is not served (default, linear, llama3 are)"));
  }
  if (!rope.status().ok()) return rope.status();
  return frequencies;
}

absl::StatusOr<std::string> Architecture(JsonFields& fields) {
  const Json* list = fields.Array("architectures");
  if (list == nullptr || list->size() != 1 || !(*list)[0].is_string()) {
    fields.Refuse("architectures", "must be a list of one name");
    return fields.status();
  }
  const auto name = (*list)[0].get<std::string>();
  if (name != "MistralForCausalLM" && name != "LlamaForCausalLM") {
    return NotServed("architectures", absl::StrCat("'", name.substr(0, 64), "' is not served"));
  }
  return name;
}

absl::Status RefuseWhatIsNotServed(JsonFields& fields) {
  for (const char* key : {"attention_bias", "mlp_bias"}) {
    if (fields.Bool(key).value_or(false)) return NotServed(key, "biases are not served");
  }
  if (fields.Int("sliding_window", 0, std::numeric_limits<int64_t>::max())) {
    return NotServed("sliding_window", "must be null");
  }
  const std::string activation = fields.String("hidden_act").value_or("silu");
  if (activation != "silu" && activation != "swish") {
    return NotServed("hidden_act", absl::StrCat("'", activation.substr(0, 32), "' is not served"));
  }
  return absl::OkStatus();
}

void CheckShapes(const ModelConfig& config, JsonFields& fields) {
  if (config.attention_heads % config.kv_heads != 0) {
    fields.Refuse("num_key_value_heads",
                  absl::StrCat(config.kv_heads, " does not divide num_attention_heads ",
                               config.attention_heads));
  }
  if (config.head_dim % 2 != 0) fields.Refuse("head_dim", "must be even");
  if (config.hidden_size % 8 != 0) fields.Refuse("hidden_size", "must be a multiple of 8");
  if (config.intermediate_size % 8 != 0) {
    fields.Refuse("intermediate_size", "must be a multiple of 8");
  }
  if (config.query_size() % 8 != 0) fields.Refuse("head_dim", "heads * head_dim must be 8 n");
}

}  // namespace

uint64_t ModelConfig::parameters() const {
  const uint64_t h = hidden_size, q = query_size(), kv = kv_size(), i = intermediate_size;
  const uint64_t layer = h * (q + 2 * kv) + q * h + 3 * h * i + 2 * h;
  return layers * layer + (tied_head ? 1 : 2) * h * vocabulary_size + h;
}

absl::StatusOr<std::vector<int32_t>> ParseEosIds(const std::string& file, const Json& config,
                                                 int32_t vocabulary_size) {
  const auto found = config.find("eos_token_id");
  if (found == config.end() || found->is_null()) return std::vector<int32_t>();
  const Json list = found->is_array() ? *found : Json::array({*found});
  std::vector<int32_t> ids;
  for (const Json& id : list) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= static_cast<uint64_t>(vocabulary_size)) {
      return absl::InvalidArgumentError(
          absl::StrCat(file, ": eos_token_id: must be ids below vocab_size ", vocabulary_size));
    }
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

absl::StatusOr<ModelConfig> ParseModelConfig(const Json& json) {
  JsonFields fields("config.json", json);
  ModelConfig config;
  absl::StatusOr<std::string> architecture = Architecture(fields);
  if (!architecture.ok()) return architecture.status();
  config.architecture = *std::move(architecture);
  if (absl::Status served = RefuseWhatIsNotServed(fields); !served.ok()) return served;

  config.hidden_size = fields.RequiredInt("hidden_size", 8, kMaxSize);
  config.intermediate_size = fields.RequiredInt("intermediate_size", 8, kMaxSize);
  config.layers = fields.RequiredInt("num_hidden_layers", 1, 4096);
  config.attention_heads = fields.RequiredInt("num_attention_heads", 1, 4096);
  config.kv_heads = fields.Int("num_key_value_heads", 1, 4096).value_or(config.attention_heads);
  const auto head_dim = fields.Int("head_dim", 2, 1024);
  if (!head_dim && config.hidden_size % config.attention_heads != 0) {
    fields.Refuse("head_dim", "is missing, and num_attention_heads does not divide hidden_size");
  }
  config.head_dim = head_dim.value_or(config.hidden_size / config.attention_heads);
  config.vocabulary_size = fields.RequiredInt("vocab_size", 2, 1 << 24);
  config.context_tokens = fields.Int("max_position_embeddings", 1, kMaxContext).value_or(2048);
  config.rms_norm_epsilon = static_cast<float>(fields.Number("rms_norm_eps", 0, 1).value_or(1e-6));
  config.tied_head = fields.Bool("tie_word_embeddings").value_or(false);
  if (fields.status().ok()) CheckShapes(config, fields);
  if (!fields.status().ok()) return fields.status();

  absl::StatusOr<std::vector<float>> frequencies = RopeFrequencies(fields, config.head_dim);
  if (!frequencies.ok()) return frequencies.status();
  config.rope_inverse_frequencies = *std::move(frequencies);
  absl::StatusOr<std::vector<int32_t>> eos =
      ParseEosIds("config.json", json, config.vocabulary_size);
  if (!eos.ok()) return eos.status();
  config.eos_ids = *std::move(eos);
  if (!fields.status().ok()) return fields.status();
  return config;
}

absl::StatusOr<ModelConfig> PartOf(const ModelConfig& whole, int32_t ranks) {
  ModelConfig part = whole;
  part.parts = ranks;
  const std::pair<const char*, int32_t*> divided[] = {
      {"num_attention_heads", &part.attention_heads},
      {"num_key_value_heads", &part.kv_heads},
      {"intermediate_size", &part.intermediate_size}};
  const auto refuse = [ranks](const char* key, int32_t value) {
    return absl::InvalidArgumentError(absl::StrCat("config.json: ", key, ": ", value,
                                                   " cannot be divided over ", ranks,
                                                   " ranks (--tensor-parallel-size)"));
  };
  for (const auto& [key, value] : divided) {
    if (*value % ranks != 0) return refuse(key, *value);
    *value /= ranks;
  }
  if (whole.vocabulary_size % ranks != 0) return refuse("vocab_size", whole.vocabulary_size);
  return part;
}

}  // namespace behemoth::worker
