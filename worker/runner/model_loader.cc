#include "worker/runner/model_loader.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <new>
#include <utility>

#include "worker/checkpoint/checkpoint.h"
#include "worker/checkpoint/random_weights.h"
#include "worker/device/cpu/paged_cache.h"
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

RunnerLimits LimitsOf(const ModelConfig& config, const LoadOptions& options) {
  RunnerLimits limits;
  limits.vocabulary_size = config.vocabulary_size;
  limits.context_tokens =
      options.max_model_len == 0 ? config.context_tokens : options.max_model_len;
  limits.tokens_per_block = cpu::kTokensPerBlock;
  limits.max_sequences = options.max_sequences;
  limits.max_step_tokens = options.max_step_tokens;
  return limits;
}

absl::Status CheckOptions(const LoadOptions& options, const ModelConfig& config) {
  const auto bad = [](const std::string& what) { return absl::InvalidArgumentError(what); };
  if (options.backend != BackendKind::kCpu) {
    return absl::UnimplementedError("backend: this build has the cpu backend only");
  }
  if (options.max_model_len < 0 || options.max_model_len > config.context_tokens) {
    return bad(absl::StrCat("max_model_len: must be 0 to ", config.context_tokens,
                            ", the model's max_position_embeddings"));
  }
  if (options.max_sequences < 1 || options.max_sequences > 4096) {
    return bad("max_sequences: must be 1 to 4096");
  }
  if (options.max_step_tokens < options.max_sequences || options.max_step_tokens > 65536) {
    return bad("max_step_tokens: must be max_sequences to 65536");
  }
  if (options.threads < 1 || options.threads > 1024) return bad("threads: must be 1 to 1024");
  return absl::OkStatus();
}

class CpuModel : public OpenedModel {
 public:
  CpuModel(const LoadOptions& options, ModelFolder folder, std::unique_ptr<WeightSource> source)
      : folder_(std::move(folder)), source_(std::move(source)) {
    const ModelConfig& config = folder_.config;
    spec_ = {.limits = LimitsOf(config, options),
             .layers = config.layers,
             .attention_heads = config.attention_heads,
             .kv_heads = config.kv_heads,
             .head_dim = config.head_dim,
             .rope_inverse_frequencies = config.rope_inverse_frequencies,
             .kv_type = options.kv_type,
             .threads = options.threads};
    folder_.description.context_tokens = spec_.limits.context_tokens;
    needs_.activation_bytes = ActivationBytes(config, spec_.limits, sizeof(float));
    needs_.block_bytes = cpu::PagedCache::BlockBytes(spec_);
    needs_.tokens_per_block = spec_.limits.tokens_per_block;
    needs_.blocks_for_one_context =
        (spec_.limits.context_tokens + needs_.tokens_per_block - 1) / needs_.tokens_per_block;
  }

  void SetWeights(uint64_t bytes, std::string fingerprint) {
    needs_.weight_bytes = bytes;
    folder_.description.weights_fingerprint = std::move(fingerprint);
  }

  const ModelDescription& description() const override { return folder_.description; }
  const ModelNeeds& needs() const override { return needs_; }

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
    absl::StatusOr<std::unique_ptr<Backend>> backend = MakeCpuBackend(spec_);
    if (!backend.ok()) return backend.status();
    const ModelConfig& config = folder_.config;
    const auto on_layer = [&](int32_t done) {
      const uint64_t total = needs_.weight_bytes;
      if (progress) progress({total * static_cast<uint64_t>(done) / config.layers, total});
    };
    absl::StatusOr<TransformerWeights> weights = LoadWeights(config, source, **backend, on_layer);
    if (!weights.ok()) return weights.status();
    absl::StatusOr<Activations> activations = AllocateActivations(config, spec_.limits, **backend);
    if (!activations.ok()) return activations.status();
    auto transformer =
        std::make_unique<Transformer>(config, *std::move(weights), *activations, **backend);
    return std::make_unique<TransformerRunner>(spec_.limits, *std::move(backend),
                                               std::move(transformer));
  }

  ModelFolder folder_;
  std::unique_ptr<WeightSource> source_;
  BackendSpec spec_;
  ModelNeeds needs_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<OpenedModel>> OpenModel(const LoadOptions& options) {
  absl::StatusOr<ModelFolder> folder = ReadModelFolder(options.folder);
  if (!folder.ok()) return folder.status();
  if (absl::Status checked = CheckOptions(options, folder->config); !checked.ok()) return checked;
  if (options.load_format == LoadFormat::kRandom) {
    const uint64_t bytes = RandomWeightBytes(*folder);
    auto source = std::make_unique<RandomWeights>(options.random_seed, folder->quantization);
    auto model = std::make_unique<CpuModel>(options, *std::move(folder), std::move(source));
    model->SetWeights(bytes, absl::StrCat("random:", options.random_seed));
    return model;
  }
  absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(options.folder, folder->quantization);
  if (!checkpoint.ok()) return checkpoint.status();
  absl::StatusOr<std::string> fingerprint = checkpoint->Fingerprint(folder->config_text);
  if (!fingerprint.ok()) return fingerprint.status();
  const uint64_t bytes = checkpoint->tensor_bytes();
  auto source = std::make_unique<Checkpoint>(*std::move(checkpoint));
  auto model = std::make_unique<CpuModel>(options, *std::move(folder), std::move(source));
  model->SetWeights(bytes, *std::move(fingerprint));
  return model;
}

}  // namespace behemoth::worker
