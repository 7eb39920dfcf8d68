#include "worker/model/activations.h"

namespace behemoth::worker {
namespace {

int32_t QkvSize(const ModelConfig& config) { return config.query_size() + 2 * config.kv_size(); }

}  // namespace

Activations Activations::ForTokens(int32_t tokens) const {
  return {.residual = residual.FirstRows(tokens),
          .normed = normed.FirstRows(tokens),
          .qkv = qkv.FirstRows(tokens),
          .attention = attention.FirstRows(tokens),
          .intermediate = intermediate.FirstRows(tokens),
          .sampled = sampled,
          .logits = logits};
}

absl::StatusOr<Activations> AllocateActivations(const ModelConfig& config,
                                                const RunnerLimits& limits, Backend& backend) {
  absl::Status status;
  const auto allocate = [&](int32_t rows, int32_t cols, ElementUse use) {
    const absl::StatusOr<Tensor> tensor = backend.Allocate(rows, cols, use);
    if (!tensor.ok()) status = tensor.status();
    return tensor.value_or(Tensor{});
  };
  const int32_t tokens = limits.max_step_tokens;
  const int32_t sequences = limits.max_sequences;
  const Activations activations = {
      .residual = allocate(tokens, config.hidden_size, ElementUse::kActivation),
      .normed = allocate(tokens, config.hidden_size, ElementUse::kActivation),
      .qkv = allocate(tokens, QkvSize(config), ElementUse::kActivation),
      .attention = allocate(tokens, config.query_size(), ElementUse::kActivation),
      .intermediate = allocate(tokens, config.intermediate_size, ElementUse::kActivation),
      .sampled = allocate(sequences, config.hidden_size, ElementUse::kActivation),
      .logits = allocate(sequences, config.vocabulary_size, ElementUse::kLogits)};
  if (!status.ok()) return status;
  return activations;
}

uint64_t ActivationBytes(const ModelConfig& config, const RunnerLimits& limits,
                         uint64_t activation_bytes) {
  const uint64_t hidden = config.hidden_size;
  const uint64_t per_token = 2 * hidden + QkvSize(config) + config.query_size() +
                             static_cast<uint64_t>(config.intermediate_size);
  const uint64_t per_sequence = hidden * activation_bytes + uint64_t{4} * config.vocabulary_size;
  return limits.max_step_tokens * per_token * activation_bytes +
         limits.max_sequences * per_sequence;
}

}  // namespace behemoth::worker
