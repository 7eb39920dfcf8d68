#include "worker/runner/model_loader.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <new>
#include <utility>

#include "worker/checkpoint/checkpoint.h"
#include "worker/checkpoint/random_weights.h"
#include "worker/model/activations.h"
#include "worker/model/transformer.h"
#include "worker/runner/model_folder.h"
#include "worker/runner/transformer_runner.h"

namespace behemoth::worker {
namespace {

// Bytes of random weights, which have no file to ask: int4 with scales of 2 bytes, or bf16.
uint64_t RandomWeightBytes(const ModelFolder& folder) {
  const ModelConfig& c = folder.config;
  const uint64_t tables = uint64_t{2} * c.hidden_size * c.vocabulary_size * (c.tied_head ? 1 : 2);
  const uint64_t all = 2 * c.parameters();
  if (!folder.quantization.quantized()) return all;
  const auto scheme = folder.quantization.SchemeOf("model.layers.0.mlp.down_proj");
  const uint64_t group = scheme && scheme->group_size > 0 ? scheme->group_size : 128;
  return tables + (all - tables) / 4 + (all - tables) / group;
}

RunnerLimits LimitsOf(const ModelConfig& config, const LoadOptions& options, const Device& device) {
  RunnerLimits limits;
  limits.vocabulary_size = config.vocabulary_size;
  limits.context_tokens =
      options.max_model_len == 0 ? config.context_tokens : options.max_model_len;
  limits.tokens_per_block = device.tokens_per_block();
  limits.max_sequences = options.max_sequences;
  limits.max_step_tokens = options.max_step_tokens != 0
                               ? options.max_step_tokens
                               : std::max(device.default_step_tokens(), options.max_sequences);
  limits.pipeline_depth = device.pipeline_depth();
  limits.token_multiple = device.token_multiple();
  return limits;
}

absl::Status CheckOptions(const LoadOptions& options, const ModelConfig& config) {
  const auto bad = [](const std::string& what) { return absl::InvalidArgumentError(what); };
  if (options.max_model_len < 0 || options.max_model_len == 1 ||
      options.max_model_len > config.context_tokens) {
    return bad(absl::StrCat("max_model_len: must be 0, or 2 to ", config.context_tokens,
                            ", the model's max_position_embeddings"));
  }
  if (options.max_sequences < 1 || options.max_sequences > 4096) {
    return bad("max_sequences: must be 1 to 4096");
  }
  if (options.max_step_tokens != 0 &&
      (options.max_step_tokens < options.max_sequences || options.max_step_tokens > 65536)) {
    return bad("max_step_tokens: must be max_sequences to 65536");
  }
  if (options.threads < 1 || options.threads > 1024) return bad("threads: must be 1 to 1024");
  return absl::OkStatus();
}

class DeviceModel : public OpenedModel {
 public:
  DeviceModel(const LoadOptions& options, const Device& device, ModelFolder folder)
      : device_(device), folder_(std::move(folder)) {
    const ModelConfig& config = folder_.config;
    spec_ = {.limits = LimitsOf(config, options, device),
             .hidden_size = config.hidden_size,
             .layers = config.layers,
             .attention_heads = config.attention_heads,
             .kv_heads = config.kv_heads,
             .head_dim = config.head_dim,
             .rope_inverse_frequencies = config.rope_inverse_frequencies,
             .kv_type = options.kv_type.value_or(device.default_kv_type()),
             .threads = options.threads};
    folder_.description.context_tokens = spec_.limits.context_tokens;
  }

  // Where the weights come from, and what they and the rest will take.
  absl::Status Plan(std::unique_ptr<WeightSource> source, uint64_t stored_bytes,
                    std::string fingerprint) {
    source_ = std::move(source);
    folder_.description.weights_fingerprint = std::move(fingerprint);
    absl::StatusOr<ModelShape> shape = ShapeOf(folder_.config, folder_.quantization, *source_);
    if (!shape.ok()) return shape.status();
    shape_ = *std::move(shape);
    shape_.stored_bytes = stored_bytes;
    absl::StatusOr<DeviceNeeds> needs = device_.Needs(shape_, spec_);
    if (!needs.ok()) return needs.status();
    RunnerLimits taken = spec_.limits;
    taken.max_step_tokens = needs->token_rows;
    taken.max_sequences = needs->sequence_rows;
    const int32_t context = spec_.limits.context_tokens, block = spec_.limits.tokens_per_block;
    needs_ = {.weight_bytes = needs->weight_bytes,
              .activation_bytes = ActivationBytes(
                  folder_.config, taken, static_cast<uint64_t>(needs->activation_element_bytes)),
              .workspace_bytes = needs->workspace_bytes,
              .block_bytes = needs->block_bytes,
              .tokens_per_block = block,
              .blocks_for_one_context = (context + block - 1) / block};
    return absl::OkStatus();
  }

  const ModelDescription& description() const override { return folder_.description; }
  const ModelNeeds& needs() const override { return needs_; }
  const RunnerLimits& limits() const override { return spec_.limits; }
  LoadTimes load_times() const override { return load_times_; }

  absl::StatusOr<std::unique_ptr<ModelRunner>> Load(
      int32_t blocks, const std::function<void(const LoadProgress&)>& progress) override {
    if (source_ == nullptr) return absl::FailedPreconditionError("the model is loaded already");
    const std::unique_ptr<WeightSource> source = std::move(source_);
    if (blocks < needs_.blocks_for_one_context) {
      return absl::ResourceExhaustedError(
          absl::StrCat("blocks: ", blocks, ", but one context of ", spec_.limits.context_tokens,
                       " tokens takes ", needs_.blocks_for_one_context));
    }
    spec_.limits.blocks = blocks;
    try {
      return Build(*source, progress);
    } catch (const std::bad_alloc&) {
      return absl::ResourceExhaustedError(
          absl::StrCat("memory: the host refused ", needs_.weight_bytes, " bytes of weights, ",
                       needs_.activation_bytes, " of activations and ", needs_.block_bytes, " x ",
                       blocks, " of KV blocks"));
    }
  }

 private:
  absl::StatusOr<std::unique_ptr<ModelRunner>> Build(
      WeightSource& source, const std::function<void(const LoadProgress&)>& progress) {
    absl::StatusOr<std::unique_ptr<Backend>> backend = device_.Start(shape_, spec_);
    if (!backend.ok()) return backend.status();
    const ModelConfig& config = folder_.config;
    const auto on_layer = [&](int32_t done) {
      const uint64_t total = needs_.weight_bytes;
      if (progress) progress({total * static_cast<uint64_t>(done) / config.layers, total});
    };
    absl::StatusOr<TransformerWeights> weights = LoadWeights(config, source, **backend, on_layer);
    if (!weights.ok()) return weights.status();
    load_times_ = (*backend)->load_times();
    absl::StatusOr<Activations> activations = AllocateActivations(config, spec_.limits, **backend);
    if (!activations.ok()) return activations.status();
    auto transformer =
        std::make_unique<Transformer>(config, *std::move(weights), *activations, **backend);
    return std::make_unique<TransformerRunner>(spec_.limits, *std::move(backend),
                                               std::move(transformer));
  }

  const Device& device_;
  ModelFolder folder_;
  std::unique_ptr<WeightSource> source_;
  ModelShape shape_;
  BackendSpec spec_;
  ModelNeeds needs_;
  LoadTimes load_times_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<OpenedModel>> OpenModel(const LoadOptions& options,
                                                       const Device& device) {
  absl::StatusOr<ModelFolder> folder = ReadModelFolder(options.folder);
  if (!folder.ok()) return folder.status();
  if (absl::Status checked = CheckOptions(options, folder->config); !checked.ok()) return checked;
  std::unique_ptr<WeightSource> source;
  uint64_t bytes = 0;
  std::string fingerprint;
  if (options.load_format == LoadFormat::kRandom) {
    source = std::make_unique<RandomWeights>(options.random_seed, folder->quantization);
    bytes = RandomWeightBytes(*folder);
    fingerprint = absl::StrCat("random:", options.random_seed);
  } else {
    absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(options.folder, folder->quantization);
    if (!checkpoint.ok()) return checkpoint.status();
    absl::StatusOr<std::string> sampled = checkpoint->Fingerprint(folder->config_text);
    if (!sampled.ok()) return sampled.status();
    fingerprint = *std::move(sampled);
    bytes = checkpoint->tensor_bytes();
    source = std::make_unique<Checkpoint>(*std::move(checkpoint));
  }
  auto model = std::make_unique<DeviceModel>(options, device, *std::move(folder));
  absl::Status planned = model->Plan(std::move(source), bytes, std::move(fingerprint));
  if (!planned.ok()) return planned;
  return model;
}

}  // namespace behemoth::worker
