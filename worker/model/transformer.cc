#include "worker/model/transformer.h"

namespace behemoth::worker {

void Transformer::Forward(int32_t tokens) {
  const auto [x, normed, qkv, attended, intermediate, sampled, logits] =
      activations_.ForTokens(tokens);
  const float epsilon = config_.rms_norm_epsilon;

  backend_.Embed(weights_.embedding, x);
  for (int32_t layer = 0; layer < config_.layers; ++layer) {
    const LayerWeights& w = weights_.layers[layer];

    backend_.RmsNorm(x, w.attention_norm, epsilon, normed);
    backend_.Linear(normed, w.qkv, qkv);
    backend_.RopeAndStore(layer, qkv);
    backend_.Attention(layer, qkv, attended);
    backend_.LinearAdd(attended, w.attention_out, x);

    backend_.RmsNorm(x, w.mlp_norm, epsilon, normed);
    backend_.LinearSiluMul(normed, w.gate_up, intermediate);
    backend_.LinearAdd(intermediate, w.down, x);
  }
  SampleLogits(x, normed);
}

void Transformer::SampleLogits(Tensor x, Tensor normed) {
  for (int32_t pass = 0; pass < backend_.LogitPasses(); ++pass) {
    const Tensor rows = backend_.GatherLogitRows(pass, x, activations_.sampled);
    if (rows.rows == 0) continue;
    const Tensor last = normed.FirstRows(rows.rows);
    const Tensor logits = activations_.logits.FirstRows(rows.rows);

    backend_.RmsNorm(rows, weights_.final_norm, config_.rms_norm_epsilon, last);
    backend_.Linear(last, weights_.head, logits);
    backend_.Sample(pass, logits);
  }
}

}  // namespace behemoth::worker
