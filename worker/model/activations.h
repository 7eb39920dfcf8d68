// The buffers of one step, sized once for the widest step.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>

#include "worker/device/backend.h"
#include "worker/model/model_config.h"

namespace behemoth::worker {

struct Activations {
  Tensor residual;      // [tokens, hidden]
  Tensor normed;        // [tokens, hidden]
  Tensor qkv;           // [tokens, (heads + 2 kv_heads) head_dim]
  Tensor attention;     // [tokens, heads head_dim]
  Tensor intermediate;  // [tokens, intermediate]
  Tensor sampled;       // [sequences, hidden]
  Tensor logits;        // [sequences, vocabulary], float

  // The first `tokens` rows of each per-token buffer.
  Activations ForTokens(int32_t tokens) const;
};

absl::StatusOr<Activations> AllocateActivations(const ModelConfig& config,
                                                const RunnerLimits& limits, Backend& backend);

// Bytes of all of the above with `activation_bytes` an element; logits are floats.
uint64_t ActivationBytes(const ModelConfig& config, const RunnerLimits& limits,
                         uint64_t activation_bytes);

}  // namespace behemoth::worker
