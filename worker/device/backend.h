// What a device offers to the forward pass: memory, weights in its own order, a step's inputs, and
// one operation per kernel. The transformer is written once, over this.
//
// Enqueue only: an operation returns at once, its effects follow in call order on one stream, and
// none makes the host wait. All that differs from step to step (ids, positions, block tables,
// which rows are sampled, the sampling state of the slots) is uploaded by BeginStep and lives on
// the device; operations see it through the backend and take only shapes from the host. So a
// step of `n` rows is the same sequence of launches every time, and can be captured as a graph.
// An error of an operation sticks and is returned by EndStep.
//
// Thread: the engine thread. Memory and weights are taken before the first step, never after.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "worker/checkpoint/linear_weights.h"
#include "worker/runner/model_runner.h"

namespace behemoth::worker {

// A row-major matrix on the device. A view: the backend owns the memory and frees it at its end.
// Element type: activations are the backend's own (cpu: float, cuda: bf16), logits are float.
struct Tensor {
  void* data = nullptr;
  int32_t rows = 0;
  int32_t cols = 0;
  Tensor FirstRows(int32_t count) const { return {data, count, cols}; }
};

enum class LinearHandle : int32_t {};  // a projection, in the backend's own packing
enum class GainHandle : int32_t {};    // an RMSNorm gain, [hidden]
enum class TableHandle : int32_t {};   // an embedding table, [vocabulary, hidden]

enum class ElementUse { kActivation, kLogits };
enum class KvType { kFloat32, kBfloat16 };

// What a backend is built for; fixed for its life.
struct BackendSpec {
  RunnerLimits limits;
  int32_t layers = 0;
  int32_t attention_heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  std::vector<float> rope_inverse_frequencies;  // [head_dim / 2]
  KvType kv_type = KvType::kFloat32;
  int32_t threads = 2;  // cpu only
};

class Backend {
 public:
  virtual ~Backend() = default;

  // ---- Before the first step ----
  virtual absl::StatusOr<Tensor> Allocate(int32_t rows, int32_t cols, ElementUse use) = 0;
  // `parts` are stacked along the outputs (q over k over v; gate over up): one operation for the
  // transformer, whatever their formats. All have the same `in`.
  virtual absl::StatusOr<LinearHandle> AddLinear(std::vector<LinearWeights> parts) = 0;
  virtual absl::StatusOr<GainHandle> AddGain(const DenseMatrix& gain) = 0;
  virtual absl::StatusOr<TableHandle> AddTable(DenseMatrix table) = 0;
  // The table itself as a projection (tied head); no second copy.
  virtual LinearHandle TableAsLinear(TableHandle table) = 0;

  // ---- One step ----
  // Binds slots, copies blocks, uploads ids and tables. The plan may die after the call.
  virtual absl::Status BeginStep(const StepPlan& plan) = 0;

  // out[t, :] = table[id of token t, :]
  virtual void Embed(TableHandle table, Tensor out) = 0;
  // out = x / sqrt(mean(x^2) + epsilon) * gain, by row; out may be x
  virtual void RmsNorm(Tensor x, GainHandle gain, float epsilon, Tensor out) = 0;
  // out = x weight^T
  virtual void Linear(Tensor x, LinearHandle weight, Tensor out) = 0;
  // residual += x weight^T
  virtual void LinearAdd(Tensor x, LinearHandle weight, Tensor residual) = 0;
  // out = silu(x gate^T) * (x up^T); weight = gate over up
  virtual void LinearSiluMul(Tensor x, LinearHandle gate_up, Tensor out) = 0;
  // Rotates q and k of qkv [tokens, (heads + 2 kv_heads) head_dim] by each token's position (halves
  // rotated, the Hugging Face layout) and writes k and v to the token's place in the paged cache.
  virtual void RopeAndStore(int32_t layer, Tensor qkv) = 0;
  // Causal attention of every token's q over its own sequence's cache, itself included:
  // out [tokens, heads head_dim]. Decode rows and prefill rows in one call.
  virtual void Attention(int32_t layer, Tensor qkv, Tensor out) = 0;

  // Logits are wanted for few tokens: the rows that sample and, rarely, the tokens of prompts whose
  // logprobs were asked for. They are made in passes of at most max_sequences rows, so that the
  // logits buffer has one size. Pass 0 is the sampled rows; its launches do not depend on the rest.
  virtual int32_t LogitPasses() const = 0;
  // The pass's rows of x, packed; returns out with its rows set.
  virtual Tensor GatherLogitRows(int32_t pass, Tensor x, Tensor out) = 0;
  // Samples the pass's rows (pass 0) or scores the prompt's successors (later passes).
  virtual void Sample(int32_t pass, Tensor logits) = 0;

  virtual absl::Status EndStep() = 0;  // all of the step is enqueued
  // Waits for the oldest ended step: the one read-back.
  virtual absl::StatusOr<StepResult> Collect() = 0;
};

absl::StatusOr<std::unique_ptr<Backend>> MakeCpuBackend(const BackendSpec& spec);

}  // namespace behemoth::worker
