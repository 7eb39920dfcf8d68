#include "worker/model/weights.h"

#include <absl/strings/str_cat.h>

#include <string>
#include <utility>

namespace behemoth::worker {
namespace {

struct Projection {
  std::string module;
  int32_t out;
};

// Reads through one source into one backend. The first error stays; the calls after it do nothing,
// so that the list of a layer's weights reads as a list.
class Loader {
 public:
  Loader(WeightSource& source, Backend& backend) : source_(source), backend_(backend) {}

  GainHandle Gain(const std::string& name, int32_t cols) {
    if (!status_.ok()) return {};
    absl::StatusOr<DenseMatrix> gain = source_.ReadDense(name, 1, cols);
    return gain.ok() ? Take(backend_.AddGain(*gain)) : Fail<GainHandle>(gain.status());
  }

  TableHandle Table(const std::string& name, int32_t rows, int32_t cols) {
    if (!status_.ok()) return {};
    absl::StatusOr<DenseMatrix> table = source_.ReadDense(name, rows, cols);
    return table.ok() ? Take(backend_.AddTable(*std::move(table)))
                      : Fail<TableHandle>(table.status());
  }

  LinearHandle Linear(const std::vector<Projection>& projections, int32_t in) {
    if (!status_.ok()) return {};
    std::vector<LinearWeights> parts;
    for (const Projection& projection : projections) {
      absl::StatusOr<LinearWeights> part =
          source_.ReadLinear(projection.module, projection.out, in);
      if (!part.ok()) return Fail<LinearHandle>(part.status());
      parts.push_back(*std::move(part));
    }
    return Take(backend_.AddLinear(std::move(parts)));
  }

  const absl::Status& status() const { return status_; }

 private:
  template <typename Handle>
  Handle Fail(const absl::Status& status) {
    status_ = status;
    return {};
  }
  template <typename Handle>
  Handle Take(const absl::StatusOr<Handle>& handle) {
    return handle.ok() ? *handle : Fail<Handle>(handle.status());
  }

  WeightSource& source_;
  Backend& backend_;
  absl::Status status_;
};

LayerWeights LoadLayer(const ModelConfig& c, int32_t layer, Loader& load) {
  const std::string at = absl::StrCat("model.layers.", layer, ".");
  LayerWeights weights;
  weights.attention_norm = load.Gain(at + "input_layernorm.weight", c.hidden_size);
  weights.qkv = load.Linear({{at + "self_attn.q_proj", c.query_size()},
                             {at + "self_attn.k_proj", c.kv_size()},
                             {at + "self_attn.v_proj", c.kv_size()}},
                            c.hidden_size);
  weights.attention_out = load.Linear({{at + "self_attn.o_proj", c.hidden_size}}, c.query_size());
  weights.mlp_norm = load.Gain(at + "post_attention_layernorm.weight", c.hidden_size);
  weights.gate_up = load.Linear(
      {{at + "mlp.gate_proj", c.intermediate_size}, {at + "mlp.up_proj", c.intermediate_size}},
      c.hidden_size);
  weights.down = load.Linear({{at + "mlp.down_proj", c.hidden_size}}, c.intermediate_size);
  return weights;
}

}  // namespace

absl::StatusOr<TransformerWeights> LoadWeights(const ModelConfig& config, WeightSource& source,
                                               Backend& backend,
                                               const std::function<void(int32_t)>& on_layer) {
  Loader load(source, backend);
  TransformerWeights weights;
  weights.embedding =
      load.Table("model.embed_tokens.weight", config.vocabulary_size, config.hidden_size);
  for (int32_t layer = 0; layer < config.layers && load.status().ok(); ++layer) {
    weights.layers.push_back(LoadLayer(config, layer, load));
    if (on_layer) on_layer(layer + 1);
  }
  weights.final_norm = load.Gain("model.norm.weight", config.hidden_size);
  if (!config.tied_head) {
    weights.head = load.Linear({{"lm_head", config.vocabulary_size}}, config.hidden_size);
  }
  if (!load.status().ok()) return load.status();
  if (config.tied_head) weights.head = backend.TableAsLinear(weights.embedding);
  return weights;
}

}  // namespace behemoth::worker
