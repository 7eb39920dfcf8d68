#include "worker/runner/model_loader.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <deque>
#include <new>
#include <thread>
#include <utility>

#include "worker/checkpoint/checkpoint.h"
#include "worker/checkpoint/random_weights.h"
#include "worker/model/activations.h"
#include "worker/model/sliced_source.h"
#include "worker/model/transformer.h"
#include "worker/runner/model_folder.h"
#include "worker/runner/parallel_runner.h"
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

// Of one rank: cut projections by the number of ranks, tables are everybody's.
uint64_t PartBytes(uint64_t stored_bytes, const ModelConfig& config, int32_t ranks) {
  const uint64_t table = uint64_t{2} * config.hidden_size * config.vocabulary_size;
  const uint64_t cut = stored_bytes - std::min(stored_bytes, table);
  return stored_bytes - cut + cut / ranks;
}

void TakeLarger(const ModelNeeds& other, ModelNeeds& needs) {
  needs.weight_bytes = std::max(needs.weight_bytes, other.weight_bytes);
  needs.activation_bytes = std::max(needs.activation_bytes, other.activation_bytes);
  needs.workspace_bytes = std::max(needs.workspace_bytes, other.workspace_bytes);
}

// One rank of the model: its part of the weights on its device.
class RankModel {
 public:
  // `part`: of the model's configuration, this rank's.
  RankModel(const LoadOptions& options, const RankPlace& place, const ModelConfig& part)
      : place_(place), config_(part) {
    spec_ = {.limits = LimitsOf(config_, options, *place.device),
             .hidden_size = config_.hidden_size,
             .layers = config_.layers,
             .attention_heads = config_.attention_heads,
             .kv_heads = config_.kv_heads,
             .head_dim = config_.head_dim,
             .rope_inverse_frequencies = config_.rope_inverse_frequencies,
             .kv_type = options.kv_type.value_or(place.device->default_kv_type()),
             .threads = options.threads,
             .group = place.group};
  }

  // Where the weights come from, and what they and the rest will take.
  absl::Status Plan(const QuantizationConfig& quantization, std::unique_ptr<WeightSource> source,
                    uint64_t stored_bytes) {
    source_ = std::move(source);
    absl::StatusOr<ModelShape> shape = ShapeOf(config_, quantization, *source_);
    if (!shape.ok()) return shape.status();
    shape_ = *std::move(shape);
    shape_.stored_bytes = stored_bytes;
    absl::StatusOr<DeviceNeeds> needs = place_.device->Needs(shape_, spec_);
    if (!needs.ok()) return needs.status();
    RunnerLimits taken = spec_.limits;
    taken.max_step_tokens = needs->token_rows;
    taken.max_sequences = needs->sequence_rows;
    const int32_t context = spec_.limits.context_tokens, block = spec_.limits.tokens_per_block;
    needs_ = {.weight_bytes = needs->weight_bytes,
              .activation_bytes = ActivationBytes(
                  config_, taken, static_cast<uint64_t>(needs->activation_element_bytes)),
              .workspace_bytes = needs->workspace_bytes,
              .block_bytes = needs->block_bytes,
              .tokens_per_block = block,
              .blocks_for_one_context = (context + block - 1) / block};
    return absl::OkStatus();
  }

  const ModelNeeds& needs() const { return needs_; }
  const RunnerLimits& limits() const { return spec_.limits; }
  const LoadTimes& load_times() const { return load_times_; }

  // Once. RESOURCE_EXHAUSTED also where the host has no memory left.
  absl::StatusOr<std::unique_ptr<ModelRunner>> Load(int32_t blocks,
                                                    const std::function<void(int32_t)>& on_layer) {
    const std::unique_ptr<WeightSource> source = std::move(source_);
    spec_.limits.blocks = blocks;
    try {
      return Build(*source, on_layer);
    } catch (const std::bad_alloc&) {
      return absl::ResourceExhaustedError(
          absl::StrCat("memory: the host refused ", needs_.weight_bytes, " bytes of weights, ",
                       needs_.activation_bytes, " of activations and ", needs_.block_bytes, " x ",
                       blocks, " of KV blocks"));
    }
  }

 private:
  absl::StatusOr<std::unique_ptr<ModelRunner>> Build(WeightSource& source,
                                                     const std::function<void(int32_t)>& on_layer) {
    absl::StatusOr<std::unique_ptr<Backend>> backend = place_.device->Start(shape_, spec_);
    if (!backend.ok()) return backend.status();
    absl::StatusOr<TransformerWeights> weights = LoadWeights(config_, source, **backend, on_layer);
    if (!weights.ok()) return weights.status();
    load_times_ = (*backend)->load_times();
    absl::StatusOr<Activations> activations = AllocateActivations(config_, spec_.limits, **backend);
    if (!activations.ok()) return activations.status();
    auto transformer =
        std::make_unique<Transformer>(config_, *std::move(weights), *activations, **backend);
    return std::make_unique<TransformerRunner>(spec_.limits, *std::move(backend),
                                               std::move(transformer));
  }

  const RankPlace place_;
  const ModelConfig config_;
  std::unique_ptr<WeightSource> source_;
  ModelShape shape_;
  BackendSpec spec_;
  ModelNeeds needs_;
  LoadTimes load_times_;
};

class DeviceModel : public OpenedModel {
 public:
  DeviceModel(const LoadOptions& options, std::span<const RankPlace> places, ModelFolder folder)
      : options_(options), places_(places.begin(), places.end()), folder_(std::move(folder)) {}

  absl::Status Plan() {
    const auto count = static_cast<int32_t>(places_.size());
    absl::StatusOr<ModelConfig> part = PartOf(folder_.config, count);
    if (!part.ok()) return part.status();
    for (int32_t rank = 0; rank < count; ++rank) {
      RankModel& model = ranks_.emplace_back(options_, places_[static_cast<size_t>(rank)], *part);
      uint64_t bytes = 0;
      absl::StatusOr<std::unique_ptr<WeightSource>> source = OpenSource(&bytes);
      if (!source.ok()) return source.status();
      if (count > 1) source = std::make_unique<SlicedSource>(*std::move(source), rank, count);
      absl::Status planned = model.Plan(folder_.quantization, *std::move(source),
                                        PartBytes(bytes, folder_.config, count));
      if (!planned.ok()) return planned;
      if (rank == 0) needs_ = model.needs();
      TakeLarger(model.needs(), needs_);
    }
    folder_.description.context_tokens = limits().context_tokens;
    return absl::OkStatus();
  }

  const ModelDescription& description() const override { return folder_.description; }
  const ModelNeeds& needs() const override { return needs_; }
  const RunnerLimits& limits() const override { return ranks_.front().limits(); }
  LoadTimes load_times() const override { return ranks_.front().load_times(); }

  absl::StatusOr<std::unique_ptr<ModelRunner>> Load(
      int32_t blocks, const std::function<void(const LoadProgress&)>& progress) override {
    if (std::exchange(loaded_, true)) {
      return absl::FailedPreconditionError("the model is loaded already");
    }
    if (blocks < needs_.blocks_for_one_context) {
      return absl::ResourceExhaustedError(absl::StrCat("blocks: ", blocks, ", but one context of ",
                                                       limits().context_tokens, " tokens takes ",
                                                       needs_.blocks_for_one_context));
    }
    const auto on_layer = [&](int32_t done) {
      const uint64_t total = needs_.weight_bytes;
      if (progress) progress({total * static_cast<uint64_t>(done) / folder_.config.layers, total});
    };
    return ranks_.size() == 1 ? ranks_.front().Load(blocks, on_layer) : LoadAll(blocks, on_layer);
  }

 private:
  // Every rank has a source of its own. The first one's fingerprint is the model's.
  absl::StatusOr<std::unique_ptr<WeightSource>> OpenSource(uint64_t* bytes) {
    std::string& fingerprint = folder_.description.weights_fingerprint;
    if (options_.load_format == LoadFormat::kRandom) {
      *bytes = RandomWeightBytes(folder_);
      fingerprint = absl::StrCat("random:", options_.random_seed);
      return std::make_unique<RandomWeights>(options_.random_seed, folder_.quantization);
    }
    absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(options_.folder, folder_.quantization);
    if (!checkpoint.ok()) return checkpoint.status();
    *bytes = checkpoint->tensor_bytes();
    if (fingerprint.empty()) {
      absl::StatusOr<std::string> sampled = checkpoint->Fingerprint(folder_.config_text);
      if (!sampled.ok()) return sampled.status();
      fingerprint = *std::move(sampled);
    }
    return std::make_unique<Checkpoint>(*std::move(checkpoint));
  }

  // All at once, rank 0 on this thread. The lowest rank's error, if there is one.
  absl::StatusOr<std::unique_ptr<ModelRunner>> LoadAll(
      int32_t blocks, const std::function<void(int32_t)>& on_layer) {
    using Loaded = absl::StatusOr<std::unique_ptr<ModelRunner>>;
    std::vector<Loaded> loaded(ranks_.size());
    std::vector<std::thread> threads;
    for (size_t rank = 1; rank < ranks_.size(); ++rank) {
      threads.emplace_back([&, rank] { loaded[rank] = ranks_[rank].Load(blocks, nullptr); });
    }
    loaded[0] = ranks_[0].Load(blocks, on_layer);
    for (std::thread& thread : threads) thread.join();
    std::vector<ParallelRunner::Rank> ranks;
    for (size_t rank = 0; rank < ranks_.size(); ++rank) {
      const absl::Status& status = loaded[rank].status();
      if (!status.ok()) {
        return absl::Status(status.code(), absl::StrCat("rank ", rank, ": ", status.message()));
      }
      ranks.push_back({*std::move(loaded[rank]), places_[rank].group});
    }
    return std::make_unique<ParallelRunner>(std::move(ranks), options_.step_bound);
  }

  const LoadOptions options_;
  const std::vector<RankPlace> places_;
  ModelFolder folder_;
  std::deque<RankModel> ranks_;
  ModelNeeds needs_;
  bool loaded_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<OpenedModel>> OpenModel(const LoadOptions& options,
                                                       std::span<const RankPlace> ranks) {
  absl::StatusOr<ModelFolder> folder = ReadModelFolder(options.folder);
  if (!folder.ok()) return folder.status();
  if (absl::Status checked = CheckOptions(options, folder->config); !checked.ok()) return checked;
  auto model = std::make_unique<DeviceModel>(options, ranks, *std::move(folder));
  if (absl::Status planned = model->Plan(); !planned.ok()) return planned;
  return model;
}

absl::StatusOr<std::unique_ptr<OpenedModel>> OpenModel(const LoadOptions& options,
                                                       const Device& device) {
  const RankPlace alone[] = {{.device = &device}};
  return OpenModel(options, alone);
}

}  // namespace behemoth::worker
