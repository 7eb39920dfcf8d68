// One GPU before a model runs on it.
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include <cstdlib>
#include <memory>
#include <utility>

#include "worker/device/cuda/cuda_backend.h"
#include "worker/device/cuda/cuda_status.h"

namespace behemoth::worker {
namespace {

using kernels::bf16;

struct PlannedLinears {
  std::vector<cuda::LinearPlan> linears;
  uint64_t weight_bytes = 0;
};

// Every piece as the backend will cut it: projections, the embedding table, gains.
// Ranks that read each other's memory hold a part of the table each.
absl::StatusOr<PlannedLinears> PlanWeights(const ModelShape& shape, const BackendSpec& spec) {
  PlannedLinears planned;
  for (const LinearShape& linear : shape.linears) {
    absl::StatusOr<cuda::LinearPlan> plan = cuda::PlanLinear(linear);
    if (!plan.ok()) return plan.status();
    planned.weight_bytes += plan->bytes();
    planned.linears.push_back(*plan);
  }
  const auto bf16_bytes = [](int64_t elements) {
    return cuda::Arena::Rounded(static_cast<size_t>(elements) * sizeof(bf16));
  };
  const bool spread = spec.group != nullptr && spec.group->peers() != nullptr;
  const int64_t table_rows = spread ? shape.head_size : shape.vocabulary_size;
  planned.weight_bytes += bf16_bytes(table_rows * shape.hidden_size);
  planned.weight_bytes += static_cast<uint64_t>(shape.gains) * bf16_bytes(shape.hidden_size);
  if (shape.tied_head) {  // the table once more, in the GEMM's order
    LinearShape head{.parts = {{"lm_head (tied)", shape.head_size, std::nullopt}},
                     .in = shape.hidden_size};
    absl::StatusOr<cuda::LinearPlan> plan = cuda::PlanLinear(head);
    if (!plan.ok()) return plan.status();
    planned.weight_bytes += plan->bytes();
    planned.linears.push_back(*plan);
  }
  return planned;
}

class CudaDevice : public Device {
 public:
  CudaDevice(int32_t ordinal, std::string name, const kernels::DeviceLimits& limits)
      : ordinal_(ordinal), name_(std::move(name)), limits_(limits) {}

  std::string name() const override { return name_; }
  DeviceMemory memory() const override {
    size_t available = 0, total = 0;
    cudaSetDevice(ordinal_);
    if (cudaMemGetInfo(&available, &total) != cudaSuccess) return {};
    return {.total_bytes = total, .available_bytes = available};
  }
  int32_t tokens_per_block() const override { return kernels::kTokensPerBlock; }
  int32_t pipeline_depth() const override { return cuda::kPipelineDepth; }
  // The GEMMs compute windows of 16, 32, 64 and 128 rows; with wgmma also of 80 and 96.
  int32_t token_multiple() const override { return 16; }
  KvType default_kv_type() const override { return KvType::kBfloat16; }
  // Where the prefill GEMM comes to its full rate: with wgmma at about 2,048 rows, without at 1,024
  // (kernels/README.md), and a step takes longer there.
  int32_t default_step_tokens() const override { return limits_.has_wgmma() ? 2048 : 1024; }
  uint64_t default_kv_bytes() const override { return 0; }

  absl::StatusOr<DeviceNeeds> Needs(const ModelShape& shape,
                                    const BackendSpec& spec) const override {
    if (spec.kv_type == KvType::kFloat32) {
      return absl::UnimplementedError("kv_cache_dtype: the cuda backend has bf16 and fp8");
    }
    if (spec.limits.vocabulary_size > kernels::kMaxVocabulary) {
      return absl::UnimplementedError(
          absl::StrCat("vocab_size: the sampling kernel has up to ", kernels::kMaxVocabulary));
    }
    if (shape.head_size != shape.vocabulary_size && shape.head_size % 8 != 0) {
      return absl::UnimplementedError(
          absl::StrCat("vocab_size: ", shape.head_size,
                       " of a rank; the cuda backend shares logits in multiples of 8"));
    }
    absl::StatusOr<PlannedLinears> planned = PlanWeights(shape, spec);
    if (!planned.ok()) return planned.status();
    cuda::Arena measure;
    absl::Status fits = cuda::Workspace::Take(measure, spec, planned->linears, limits_).status();
    if (!fits.ok()) return fits;
    return DeviceNeeds{
        .weight_bytes = planned->weight_bytes,
        .workspace_bytes = measure.used(),
        .block_bytes = static_cast<uint64_t>(spec.layers) * KvBlockBytes(cuda::KvShapeOf(spec)),
        .activation_element_bytes = sizeof(bf16),
        .token_rows = cuda::PaddedRows(spec.limits.max_step_tokens),
        .sequence_rows = cuda::PaddedRows(spec.limits.max_sequences)};
  }

  absl::StatusOr<std::unique_ptr<Backend>> Start(const ModelShape& shape,
                                                 const BackendSpec& spec) const override {
    absl::StatusOr<PlannedLinears> planned = PlanWeights(shape, spec);
    if (!planned.ok()) return planned.status();
    return cuda::CudaBackend::Make(spec, planned->linears, planned->weight_bytes, ordinal_,
                                   limits_);
  }

 private:
  const int32_t ordinal_;
  const std::string name_;
  const kernels::DeviceLimits limits_;
};

// The limits of GPU `ordinal`, which becomes the thread's current one.
absl::StatusOr<kernels::DeviceLimits> OpenLimits(int32_t ordinal, const cudaDeviceProp& gpu) {
  if (gpu.major < 8) {
    return absl::UnavailableError(absl::StrFormat(
        "cuda: the kernels need compute capability 8.0 or newer (A100, RTX 30); %s has %d.%d",
        gpu.name, gpu.major, gpu.minor));
  }
  kernels::DeviceLimits limits;
  const kernels::KernelError queried = kernels::QueryDeviceLimits(ordinal, &limits);
  if (queried.code == cudaErrorNoKernelImageForDevice) {
    return absl::UnavailableError(absl::StrFormat(
        "cuda: this build has no code for compute capability %d.%d (%s); the default of "
        "BEHEMOTH_CUDA_ARCHITECTURES has some for every GPU from 8.0 on",
        gpu.major, gpu.minor, gpu.name));
  }
  if (!queried.ok()) {
    return absl::UnavailableError(absl::StrCat(
        "cuda: GPU ", ordinal, " (", gpu.name,
        ") does not answer: ", cudaGetErrorString(static_cast<cudaError_t>(queried.code))));
  }
  return limits;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> OpenCuda(int32_t ordinal) {
  // A kernel that is loaded at its first launch waits for the device, and the device may be waiting
  // for this thread's next call: a step for its masks, a rank for another one.
  setenv("CUDA_MODULE_LOADING", "EAGER", /*overwrite=*/1);
  int driver = 0, count = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
    return absl::UnavailableError("cuda: no NVIDIA driver is installed on this machine");
  }
  // Within a major version any driver runs what any toolkit built.
  if (driver / 1000 < CUDART_VERSION / 1000) {
    return absl::UnavailableError(absl::StrFormat(
        "cuda: the NVIDIA driver serves CUDA %d.%d, this build needs a driver for %d",
        driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000));
  }
  const cudaError_t counted = cudaGetDeviceCount(&count);
  if (counted != cudaSuccess) {
    return absl::UnavailableError(absl::StrCat("cuda: ", cudaGetErrorString(counted)));
  }
  if (ordinal >= count) {
    return absl::UnavailableError(
        absl::StrCat("device: GPU ", ordinal, " was asked for, this machine has ", count));
  }
  cudaDeviceProp properties;
  const cudaError_t error = cudaGetDeviceProperties(&properties, ordinal);
  if (error != cudaSuccess) {
    return absl::UnavailableError(
        absl::StrCat("cuda: GPU ", ordinal, " does not answer: ", cudaGetErrorString(error)));
  }
  const absl::StatusOr<kernels::DeviceLimits> limits = OpenLimits(ordinal, properties);
  if (!limits.ok()) return limits.status();
  return std::make_unique<CudaDevice>(ordinal, properties.name, *limits);
}

}  // namespace behemoth::worker
