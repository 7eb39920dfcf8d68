// A place where models can run, before one does: what it is, what a model would take there, and the
// backend that starts on it. So an impossible plan is refused before a byte of weights is read.
//
// Thread-compatible. One per worker; outlives its backend.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "worker/checkpoint/quantization_config.h"
#include "worker/device/backend.h"

namespace behemoth::worker {

// Weights by shape: all that a memory plan needs to know of a checkpoint.
struct ProjectionShape {
  std::string module;
  int32_t out = 0;
  std::optional<LinearScheme> scheme;  // nullopt: dense
};
struct LinearShape {
  std::vector<ProjectionShape> parts;  // stacked
  int32_t in = 0;
  LinearUse use = LinearUse::kPlain;
  bool one_input_order = true;  // act-order: the parts agree on the order of their inputs
};
struct ModelShape {
  std::vector<LinearShape> linears;  // every one of every layer, and the head unless it is tied
  int32_t vocabulary_size = 0;
  int32_t head_size = 0;  // the head's outputs: of one rank, a part of the vocabulary
  int32_t hidden_size = 0;
  int32_t gains = 0;
  bool tied_head = false;
  uint64_t stored_bytes = 0;  // of all tensors as the checkpoint holds them
};

struct DeviceMemory {
  uint64_t total_bytes = 0;
  uint64_t available_bytes = 0;  // not held by others
};

struct DeviceNeeds {
  uint64_t weight_bytes = 0;
  uint64_t workspace_bytes = 0;  // all beside weights, activations and KV
  uint64_t block_bytes = 0;      // one KV block of all layers
  int32_t activation_element_bytes = 0;
  int32_t token_rows = 0;     // rows that Allocate takes for max_step_tokens
  int32_t sequence_rows = 0;  // and for max_sequences
};

class Device {
 public:
  virtual ~Device() = default;
  virtual std::string name() const = 0;  // "cpu", "NVIDIA H100 80GB HBM3"
  virtual DeviceMemory memory() const = 0;
  virtual int32_t tokens_per_block() const = 0;
  virtual int32_t pipeline_depth() const = 0;
  virtual int32_t token_multiple() const { return 1; }  // RunnerLimits::token_multiple
  virtual KvType default_kv_type() const = 0;
  virtual int32_t default_step_tokens() const = 0;  // max_step_tokens, where nothing is said
  virtual uint64_t default_kv_bytes() const = 0;    // 0 = all that is left

  // What `shape` takes here. INVALID_ARGUMENT or UNIMPLEMENTED naming the module or the dimension
  // that this device cannot serve. `spec` needs no limits.blocks yet.
  virtual absl::StatusOr<DeviceNeeds> Needs(const ModelShape& shape,
                                            const BackendSpec& spec) const = 0;
  // RESOURCE_EXHAUSTED if the memory is not there after all.
  virtual absl::StatusOr<std::unique_ptr<Backend>> Start(const ModelShape& shape,
                                                         const BackendSpec& spec) const = 0;
};

// `ranks` of them share the host: each has that part of its memory.
std::unique_ptr<Device> OpenCpu(int32_t ranks = 1);
// UNIMPLEMENTED: this build has no CUDA. UNAVAILABLE: no driver, no such GPU, or one too old.
absl::StatusOr<std::unique_ptr<Device>> OpenCuda(int32_t ordinal);

}  // namespace behemoth::worker
