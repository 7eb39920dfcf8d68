// The decoder of Llama and Mistral: one operation per line, the same lines on every backend.
// Sources: arXiv:2302.13971 (Llama), arXiv:2310.06825 (Mistral), arXiv:2305.13245 (grouped
// queries).
#pragma once

#include <utility>

#include "worker/device/backend.h"
#include "worker/model/activations.h"
#include "worker/model/model_config.h"
#include "worker/model/weights.h"

namespace behemoth::worker {

class Transformer {
 public:
  // `backend` outlives this.
  Transformer(ModelConfig config, TransformerWeights weights, Activations activations,
              Backend& backend)
      : config_(std::move(config)),
        weights_(std::move(weights)),
        activations_(activations),
        backend_(backend) {}

  // Enqueues the operations of a step of `tokens` tokens: what Backend::RunStep calls.
  void Forward(int32_t tokens);

 private:
  // `normed` is free by then; a pass has no more rows than a step has tokens.
  void SampleLogits(Tensor residual, Tensor normed);

  const ModelConfig config_;
  const TransformerWeights weights_;
  const Activations activations_;
  Backend& backend_;
};

}  // namespace behemoth::worker
