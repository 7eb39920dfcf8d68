// From a model folder to a running model, in two steps, so that an impossible memory plan is
// refused before a byte of weights is read:
//
//   auto model = OpenModel(options, *device);         // config and headers only: milliseconds
//   (*model)->needs(), (*model)->description()        // the memory plan decides `blocks`
//   auto runner = (*model)->Load(blocks, progress);   // reads, packs, allocates
//
// Thread: any one. Errors name the file and the key or tensor: INVALID_ARGUMENT for what the
// folder or the options say, NOT_FOUND for a missing file, UNIMPLEMENTED for a format or
// architecture that is not served, RESOURCE_EXHAUSTED for memory.
#pragma once

#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "worker/device/device.h"
#include "worker/runner/model_runner.h"

namespace behemoth::worker {

enum class LoadFormat { kAuto, kRandom };

struct LoadOptions {
  std::string folder;
  LoadFormat load_format = LoadFormat::kAuto;
  uint64_t random_seed = 0;       // kRandom: the same seed and config give the same weights
  std::optional<KvType> kv_type;  // nullopt = the device's own
  int32_t max_model_len = 0;      // 0 = the config's context; never above it
  int32_t max_sequences = 64;
  int32_t max_step_tokens = 0;  // at least max_sequences; 0 = the device's own
  int32_t threads = 2;          // cpu; of each rank
  absl::Duration step_bound = absl::InfiniteDuration();  // of several ranks: ParallelRunner
};

// What generation_config.json asks for where a request says nothing.
struct GenerationDefaults {
  std::optional<float> temperature, top_p, min_p, repetition_penalty;
  std::optional<int32_t> top_k;
};

struct ModelDescription {
  std::string architecture;  // "MistralForCausalLM"
  uint64_t parameters = 0;   // of the unquantized model
  int32_t hidden_size = 0;
  int32_t layers = 0;
  int32_t attention_heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t intermediate_size = 0;
  int32_t vocabulary_size = 0;
  int32_t context_tokens = 0;  // after max_model_len
  std::string quantization;    // "pack-quantized int4 g128 symmetric", "gptq int4 g128", "none"
  std::string weights_fingerprint;  // 128-bit hex of config.json, the tensor headers and a sample
                                    // of every tensor's bytes; "random:<seed>" for random weights
  std::vector<int32_t> eos_ids;     // generation_config.json, else config.json
  GenerationDefaults generation_defaults;
};

// Bytes that the backend will take; block count is the caller's choice. Of several ranks: the
// largest of each, which is what every one gets.
struct ModelNeeds {
  uint64_t weight_bytes = 0;
  uint64_t activation_bytes = 0;  // for max_step_tokens and max_sequences, logits included
  uint64_t workspace_bytes = 0;   // step inputs, sampling state, kernels' scratch
  uint64_t block_bytes = 0;       // one KV block: kTokensPerBlock tokens of every layer
  int32_t tokens_per_block = 0;
  int32_t blocks_for_one_context = 0;  // the longest legal request alone

  uint64_t fixed_bytes() const { return weight_bytes + activation_bytes + workspace_bytes; }
};

struct LoadProgress {
  uint64_t done_bytes = 0;
  uint64_t total_bytes = 0;
};

class OpenedModel {
 public:
  virtual ~OpenedModel() = default;
  virtual const ModelDescription& description() const = 0;
  virtual const ModelNeeds& needs() const = 0;
  // What the runner will have; `blocks` is still 0.
  virtual const RunnerLimits& limits() const = 0;
  // Once. `progress` is called from this thread, after each layer.
  virtual absl::StatusOr<std::unique_ptr<ModelRunner>> Load(
      int32_t blocks, const std::function<void(const LoadProgress&)>& progress) = 0;
  // Where Load spent its time.
  virtual LoadTimes load_times() const = 0;
};

// Where a rank runs, and what joins it to the others.
struct RankPlace {
  const Device* device = nullptr;
  RankGroup* group = nullptr;  // null: there is one rank
};

// Rank i's place is element i; devices and groups outlive the model and its runner. With several,
// INVALID_ARGUMENT or UNIMPLEMENTED also for a dimension or a module that cannot be divided.
absl::StatusOr<std::unique_ptr<OpenedModel>> OpenModel(const LoadOptions& options,
                                                       std::span<const RankPlace> ranks);
// On one device, which outlives the model and its runner.
absl::StatusOr<std::unique_ptr<OpenedModel>> OpenModel(const LoadOptions& options,
                                                       const Device& device);

}  // namespace behemoth::worker
