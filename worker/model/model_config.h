// The architecture of one checkpoint, from its config.json: MistralForCausalLM or LlamaForCausalLM,
// dense, any size. A plain value; every number is checked, and nothing else reads the file's keys.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace behemoth::worker {

struct ModelConfig {
  std::string architecture;
  int32_t hidden_size = 0;
  int32_t intermediate_size = 0;
  int32_t layers = 0;
  int32_t attention_heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;  // even
  int32_t vocabulary_size = 0;
  int32_t context_tokens = 0;  // max_position_embeddings
  float rms_norm_epsilon = 0;
  bool tied_head = false;
  // [head_dim / 2] radians per position, rope scaling applied.
  std::vector<float> rope_inverse_frequencies;
  std::vector<int32_t> eos_ids;
  // Of how many equal parts these dimensions are one: PartOf.
  int32_t parts = 1;

  // The head's outputs; a part's are some of the vocabulary's.
  int32_t head_size() const { return vocabulary_size / parts; }
  int32_t query_size() const { return attention_heads * head_dim; }
  int32_t kv_size() const { return kv_heads * head_dim; }
  uint64_t parameters() const;
};

// Unknown keys are ignored. INVALID_ARGUMENT "config.json: <key>: ..." for a bad value,
// UNIMPLEMENTED for one that asks for something that is not served (bias, sliding window, ...).
absl::StatusOr<ModelConfig> ParseModelConfig(const nlohmann::json& config);

// One rank's part of a model: attention heads, KV heads, intermediate and head_size() divided by
// `ranks`, the rest whole. INVALID_ARGUMENT naming the key that cannot be divided, with the
// numbers.
absl::StatusOr<ModelConfig> PartOf(const ModelConfig& whole, int32_t ranks);

// eos_token_id of config.json or generation_config.json: absent, a number or a list.
absl::StatusOr<std::vector<int32_t>> ParseEosIds(const std::string& file,
                                                 const nlohmann::json& config,
                                                 int32_t vocabulary_size);

}  // namespace behemoth::worker
