#include "worker/check_model.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "worker/checkpoint/checkpoint.h"
#include "worker/device/device.h"
#include "worker/memory_budget.h"
#include "worker/parallel/in_process_group.h"
#include "worker/runner/model_folder.h"
#include "worker/runner/model_loader.h"

namespace behemoth::worker {
namespace {

// By the suffix of its weights: plain, pack-quantized, GPTQ.
constexpr const char* kForms[] = {".weight", ".weight_packed", ".qweight"};

absl::Status CheckProjection(const Checkpoint& files, const std::string& module) {
  for (const char* form : kForms) {
    if (files.Has(module + form)) return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(module,
                   ": the checkpoint holds no weights of it (.weight, .weight_packed or "
                   ".qweight)"));
}

// Everything that the load will ask for by name; norms and KV scales, which are small, are read.
absl::Status CheckTensors(const ModelConfig& config, Checkpoint& files) {
  const auto gain = [&](const std::string& name) {
    return files.ReadDense(name, 1, config.hidden_size).status();
  };
  if (!files.Has("model.embed_tokens.weight")) {
    return absl::InvalidArgumentError("model.embed_tokens.weight: not in the checkpoint");
  }
  std::vector<std::string> projections;
  if (!config.tied_head) projections.push_back("lm_head");
  for (int32_t layer = 0; layer < config.layers; ++layer) {
    const std::string at = absl::StrCat("model.layers.", layer, ".");
    for (const char* part : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                             "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}) {
      projections.push_back(at + part);
    }
    for (const char* scale : {"self_attn.k_scale", "self_attn.v_scale"}) {
      const auto read = files.ReadKvScale(at + scale, config.kv_heads);
      if (!read.ok()) return read.status();
    }
    for (const char* norm : {"input_layernorm.weight", "post_attention_layernorm.weight"}) {
      if (absl::Status status = gain(at + norm); !status.ok()) return status;
    }
  }
  for (const std::string& module : projections) {
    if (absl::Status status = CheckProjection(files, module); !status.ok()) return status;
  }
  return gain("model.norm.weight");
}

LoadOptions OptionsOf(const Config& config, bool here) {
  const std::string& dtype = config.kv_cache_dtype;
  LoadOptions options = {.folder = config.check_model,
                         .max_model_len = config.max_model_len,
                         .max_sequences = config.max_num_seqs,
                         .max_step_tokens = config.max_step_tokens,
                         .threads = 1};
  if (dtype == "float32") options.kv_type = KvType::kFloat32;
  if (dtype == "bf16" || dtype == "bfloat16") options.kv_type = KvType::kBfloat16;
  if (dtype == "fp8" || dtype == "fp8_e4m3") options.kv_type = KvType::kFp8;
  // A GPU that is not here would keep bf16.
  if (!here && !options.kv_type) options.kv_type = KvType::kBfloat16;
  return options;
}

std::string Dimensions(const ModelDescription& m, const ModelNeeds& needs, int ranks) {
  return absl::StrFormat(
      "architecture: %s, %.1f billion parameters\n"
      "dimensions: %d layers, hidden %d, intermediate %d, %d heads of %d (%d of keys and values), "
      "vocabulary %d, context %d tokens\n"
      "quantization: %s\n"
      "weights: %.2f GiB in files%s, fingerprint %s\n",
      m.architecture, static_cast<double>(m.parameters) / 1e9, m.layers, m.hidden_size,
      m.intermediate_size, m.attention_heads, m.head_dim, m.kv_heads, m.vocabulary_size,
      m.context_tokens, m.quantization,
      static_cast<double>(needs.weight_bytes) / static_cast<double>(1 << 30),
      ranks > 1 ? absl::StrCat(" for each of ", ranks, " ranks") : "", m.weights_fingerprint);
}

// Every rank has a device of that memory.
absl::StatusOr<MemoryPlan> PlanFor(const Config& config, const OpenedModel& model,
                                   int32_t* fitting_tokens) {
  const auto bytes = static_cast<uint64_t>(config.check_memory_gib * (1 << 30));
  const MemoryLimits limits = {
      .total_bytes = bytes,
      .available_bytes = bytes,
      .utilization = config.gpu_memory_utilization,
      .limit_bytes = static_cast<uint64_t>(config.gpu_memory_limit_gib * (1 << 30)),
      .kv_bytes = config.kv_cache_memory_bytes};
  return PlanMemory(model.needs(), model.description().context_tokens, config.max_num_seqs, limits,
                    fitting_tokens);
}

}  // namespace

absl::StatusOr<std::string> CheckModel(const Config& config) {
  absl::StatusOr<std::unique_ptr<Device>> device = absl::UnavailableError("cpu is asked for");
  if (config.backend != "cpu") device = OpenCuda(config.device);
  const bool here = device.ok() || config.backend == "cpu";
  if (!device.ok()) device = OpenCpu();
  LoadOptions options = OptionsOf(config, here);
  // One device stands for those of all ranks: what a rank needs of it is asked, nothing runs.
  const auto groups = config.tensor_parallel_size > 1
                          ? MakeInProcessGroup(config.tensor_parallel_size)
                          : std::vector<std::unique_ptr<RankGroup>>();
  std::vector<RankPlace> places(1, {.device = device->get()});
  places.resize(std::max<size_t>(1, groups.size()), places.front());
  for (size_t rank = 0; rank < groups.size(); ++rank) places[rank].group = groups[rank].get();
  auto model = OpenModel(options, places);
  if (!model.ok()) return model.status();
  auto folder = ReadModelFolder(config.check_model);
  if (!folder.ok()) return folder.status();
  auto files = Checkpoint::Open(config.check_model, folder->quantization);
  if (!files.ok()) return files.status();
  if (absl::Status tensors = CheckTensors(folder->config, *files); !tensors.ok()) return tensors;
  std::string report =
      Dimensions((*model)->description(), (*model)->needs(), config.tensor_parallel_size);
  if (config.check_memory_gib == 0) return report;

  int32_t fitting_tokens = 0;
  absl::StatusOr<MemoryPlan> plan = PlanFor(config, **model, &fitting_tokens);
  if (!plan.ok() && config.max_model_len == 0 && fitting_tokens > 1) {  // as the worker caps it
    options.max_model_len = fitting_tokens;
    model = OpenModel(options, places);
    if (!model.ok()) return model.status();
    plan = PlanFor(config, **model, nullptr);
  }
  if (!plan.ok()) return plan.status();
  return absl::StrCat(report, "memory plan for ", config.check_memory_gib, " GiB",
                      groups.empty() ? "" : " of each rank",
                      here ? "" : ", estimated without the device", ": ", plan->Describe(), "\n");
}

}  // namespace behemoth::worker
