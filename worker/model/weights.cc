#include "worker/model/weights.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <string>
#include <utility>

#include "worker/checkpoint/slice.h"

namespace behemoth::worker {
namespace {

struct Projection {
  std::string module;
  int32_t out;
};

// Projections that share their input and are computed as one.
struct Fused {
  std::vector<Projection> projections;
  int32_t in;
  LinearUse use = LinearUse::kPlain;
};

std::string At(int32_t layer) { return absl::StrCat("model.layers.", layer, "."); }

Fused Qkv(const ModelConfig& c, int32_t layer) {
  return {{{At(layer) + "self_attn.q_proj", c.query_size()},
           {At(layer) + "self_attn.k_proj", c.kv_size()},
           {At(layer) + "self_attn.v_proj", c.kv_size()}},
          c.hidden_size};
}
Fused AttentionOut(const ModelConfig& c, int32_t layer) {
  return {{{At(layer) + "self_attn.o_proj", c.hidden_size}}, c.query_size()};
}
Fused GateUp(const ModelConfig& c, int32_t layer) {
  return {{{At(layer) + "mlp.gate_proj", c.intermediate_size},
           {At(layer) + "mlp.up_proj", c.intermediate_size}},
          c.hidden_size,
          LinearUse::kGateUp};
}
Fused Down(const ModelConfig& c, int32_t layer) {
  return {{{At(layer) + "mlp.down_proj", c.hidden_size}}, c.intermediate_size};
}
Fused Head(const ModelConfig& c) { return {{{"lm_head", c.head_size()}}, c.hidden_size}; }

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

  LinearHandle Linear(const Fused& fused) {
    if (!status_.ok()) return {};
    std::vector<LinearWeights> parts;
    for (const Projection& projection : fused.projections) {
      absl::StatusOr<LinearWeights> part =
          source_.ReadLinear(projection.module, projection.out, fused.in);
      if (!part.ok()) return Fail<LinearHandle>(part.status());
      parts.push_back(*std::move(part));
    }
    const absl::StatusOr<LinearHandle> added = backend_.AddLinear(std::move(parts), fused.use);
    if (added.ok()) return *added;
    const std::string& module = fused.projections.front().module;
    return Fail<LinearHandle>(
        absl::Status(added.status().code(), absl::StrCat(module, ": ", added.status().message())));
  }

  void KvScales(int32_t layer, const std::string& attention, int32_t kv_heads) {
    if (!status_.ok()) return;
    absl::StatusOr<std::vector<float>> k = source_.ReadKvScale(attention + "k_scale", kv_heads);
    absl::StatusOr<std::vector<float>> v = source_.ReadKvScale(attention + "v_scale", kv_heads);
    status_ = !k.ok() ? k.status() : v.status();
    if (status_.ok() && !k->empty()) status_ = backend_.SetKvScales(layer, *k, *v);
  }

  LinearHandle TiedHead(TableHandle table) {
    return status_.ok() ? Take(backend_.TableAsLinear(table)) : LinearHandle();
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
  LayerWeights weights;
  weights.attention_norm = load.Gain(At(layer) + "input_layernorm.weight", c.hidden_size);
  weights.qkv = load.Linear(Qkv(c, layer));
  load.KvScales(layer, At(layer) + "self_attn.", c.kv_heads);
  weights.attention_out = load.Linear(AttentionOut(c, layer));
  weights.mlp_norm = load.Gain(At(layer) + "post_attention_layernorm.weight", c.hidden_size);
  weights.gate_up = load.Linear(GateUp(c, layer));
  weights.down = load.Linear(Down(c, layer));
  return weights;
}

LinearShape AsShape(const Fused& fused, const QuantizationConfig& quantization) {
  LinearShape shape{.in = fused.in, .use = fused.use};
  for (const Projection& projection : fused.projections) {
    shape.parts.push_back(
        {projection.module, projection.out, quantization.SchemeOf(projection.module)});
  }
  return shape;
}

// What InputsOf (checkpoint/slice.h) would refuse, before a byte of weights is read.
absl::Status CheckCuts(const ModelShape& shape, const ModelConfig& config) {
  if (config.parts == 1) return absl::OkStatus();
  for (const LinearShape& linear : shape.linears) {
    for (const ProjectionShape& part : linear.parts) {
      if (!part.scheme || CutOf(part.module) == Cut::kOutputs) continue;
      if (!CanCutInputs(part.scheme->group_size, linear.in)) {
        return absl::UnimplementedError(
            absl::StrCat(part.module, ": ", linear.in * config.parts, " inputs in groups of ",
                         part.scheme->group_size, " cannot be cut into ", config.parts,
                         " ranks' parts of ", linear.in));
      }
      if (part.scheme->uses_g_idx) {
        return absl::UnimplementedError(
            absl::StrCat(part.module,
                         ": act-order (g_idx): its groups take inputs of several ranks; such a "
                         "checkpoint is served with --tensor-parallel-size 1"));
      }
    }
  }
  return absl::OkStatus();
}

// The one thing of a memory plan that no header tells.
absl::Status FindInputOrders(ModelShape& shape, WeightSource& source) {
  for (LinearShape& linear : shape.linears) {
    const bool ordered = std::any_of(
        linear.parts.begin(), linear.parts.end(),
        [](const ProjectionShape& part) { return part.scheme && part.scheme->uses_g_idx; });
    if (linear.parts.size() == 1 || !ordered) continue;
    std::vector<std::string> modules;
    for (const ProjectionShape& part : linear.parts) modules.push_back(part.module);
    const absl::StatusOr<bool> shared = source.ShareInputOrder(modules, linear.in);
    if (!shared.ok()) return shared.status();
    linear.one_input_order = *shared;
  }
  return absl::OkStatus();
}

}  // namespace

Cut CutOf(std::string_view module) {
  const bool by_inputs = module.ends_with(".o_proj") || module.ends_with(".down_proj");
  return by_inputs ? Cut::kInputs : Cut::kOutputs;
}

absl::StatusOr<ModelShape> ShapeOf(const ModelConfig& config,
                                   const QuantizationConfig& quantization, WeightSource& source) {
  ModelShape shape{.vocabulary_size = config.vocabulary_size,
                   .head_size = config.head_size(),
                   .hidden_size = config.hidden_size,
                   .gains = 2 * config.layers + 1,
                   .tied_head = config.tied_head};
  const auto add = [&](const Fused& fused) {
    shape.linears.push_back(AsShape(fused, quantization));
  };
  for (int32_t layer = 0; layer < config.layers; ++layer) {
    add(Qkv(config, layer));
    add(AttentionOut(config, layer));
    add(GateUp(config, layer));
    add(Down(config, layer));
  }
  if (!config.tied_head) add(Head(config));
  if (absl::Status cut = CheckCuts(shape, config); !cut.ok()) return cut;
  if (absl::Status known = FindInputOrders(shape, source); !known.ok()) return known;
  return shape;
}

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
  weights.head = config.tied_head ? load.TiedHead(weights.embedding) : load.Linear(Head(config));
  if (!load.status().ok()) return load.status();
  if (absl::Status finished = backend.FinishWeights(); !finished.ok()) return finished;
  return weights;
}

}  // namespace behemoth::worker
