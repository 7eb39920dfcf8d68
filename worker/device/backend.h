// What a device offers to the forward pass: memory, weights in its own order, a step's inputs, and
// one operation per kernel. The transformer is written once, over this.
//
// Enqueue only: an operation returns at once, its effects follow in call order on one stream, and
// none makes the host wait. All that differs from step to step (ids, positions, block tables,
// which rows are sampled, the sampling state of the slots) is uploaded by RunStep and lives on
// the device; operations see it through the backend and take only shapes from the host. So a
// step of `n` tokens is the same sequence of launches every time, and can be recorded and replayed.
// An error of an operation sticks and is returned by RunStep.
//
// Ranks. Several backends may share one model (BackendSpec::group): each holds its part of the
// weights and the whole residual stream. Two operations then meet the other ranks: LinearAdd, and
// Linear into logits. All ranks run the same steps; each samples, with the same outcome.
//
// Thread: the loading thread until the first step, then the engine thread. Memory and weights are
// taken before the first step, never after.
#pragma once

#include <absl/functional/function_ref.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <vector>

#include "worker/checkpoint/linear_weights.h"
#include "worker/parallel/rank_group.h"
#include "worker/runner/model_runner.h"

namespace behemoth::worker {

enum class ElementUse {
  kActivation,  // the backend's own element and order (cpu: float; cuda: bf16, some tiled)
  kLogits,      // float, row-major
};

// A matrix on the device. A view: the backend owns the memory and frees it at its end.
struct Tensor {
  void* data = nullptr;
  int32_t rows = 0;
  int32_t cols = 0;
  ElementUse use = ElementUse::kActivation;
  Tensor FirstRows(int32_t count) const { return {data, count, cols, use}; }
};

enum class LinearHandle : int32_t {};  // a projection, in the backend's own packing
enum class GainHandle : int32_t {};    // an RMSNorm gain, [hidden]
enum class TableHandle : int32_t {};   // an embedding table, [vocabulary, hidden]

enum class LinearUse {
  kPlain,
  kGateUp,  // for LinearSiluMul: two parts of equal size, gate over up
};
enum class KvType { kFloat32, kBfloat16, kFp8 };  // fp8: e4m3

// Where loading spent its time; zero where a backend has no such phase.
struct LoadTimes {
  absl::Duration reading;  // each reader: out of files, into pinned memory
  absl::Duration copying;  // each reader: waiting for the device to take it
  absl::Duration idle;     // each reader: nothing to read yet
  absl::Duration packing;  // of the device: into the kernels' order
};

// What a backend is built for; fixed for its life.
struct BackendSpec {
  RunnerLimits limits;
  int32_t hidden_size = 0;
  int32_t layers = 0;
  int32_t attention_heads = 0;  // of this rank, as kv_heads
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  std::vector<float> rope_inverse_frequencies;  // [head_dim / 2]
  KvType kv_type = KvType::kFloat32;
  int32_t threads = 2;         // cpu only
  RankGroup* group = nullptr;  // null: this backend has the whole model; outlives the backend
};

class Backend {
 public:
  virtual ~Backend() = default;

  // ---- Before the first step ----
  virtual absl::StatusOr<Tensor> Allocate(int32_t rows, int32_t cols, ElementUse use) = 0;
  // `parts` are stacked along the outputs (q over k over v; gate over up): one operation for the
  // transformer, whatever their formats. All have the same `in`.
  virtual absl::StatusOr<LinearHandle> AddLinear(std::vector<LinearWeights> parts,
                                                 LinearUse use) = 0;
  virtual absl::StatusOr<GainHandle> AddGain(const DenseMatrix& gain) = 0;
  virtual absl::StatusOr<TableHandle> AddTable(DenseMatrix table) = 0;
  // Layer `layer`'s fp8 keys and values are stored divided by these, one for each KV head. Without
  // them the scale is 1; a cache of another type needs none.
  virtual absl::Status SetKvScales(int32_t /*layer*/, const std::vector<float>& /*k*/,
                                   const std::vector<float>& /*v*/) {
    return absl::OkStatus();
  }
  // The table itself as a projection (tied head); of a rank, its part of the rows.
  virtual absl::StatusOr<LinearHandle> TableAsLinear(TableHandle table) = 0;
  // After the last weight: all are in place when this returns. Files may be read until then, and
  // their errors come from any of the calls above, or at the latest from here.
  virtual absl::Status FinishWeights() = 0;
  virtual LoadTimes load_times() const { return {}; }

  // ---- One step ----
  // Enqueues a whole step: binds slots, copies blocks, uploads ids and tables, then has `forward`
  // enqueue the operations below for `tokens` tokens. A backend may pad `tokens`, and may replay
  // what it recorded of an earlier step of the same shape instead of calling `forward`. A plan of
  // bindings and copies alone has no forward. The plan may die after the call.
  virtual absl::Status RunStep(const StepPlan& plan,
                               absl::FunctionRef<void(int32_t tokens)> forward) = 0;
  // Waits for the oldest step that was enqueued: the one read-back.
  virtual absl::StatusOr<StepResult> Collect() = 0;

  // ---- Operations: inside `forward` only ----
  // out[t, :] = table[id of token t, :]
  virtual void Embed(TableHandle table, Tensor out) = 0;
  // out = x / sqrt(mean(x^2) + epsilon) * gain, by row; out is not x
  virtual void RmsNorm(Tensor x, GainHandle gain, float epsilon, Tensor out) = 0;
  // out = x weight^T. Logits are those of all ranks, one rank's vocabulary behind the other's.
  virtual void Linear(Tensor x, LinearHandle weight, Tensor out) = 0;
  // residual += x weight^T, summed over the ranks
  virtual void LinearAdd(Tensor x, LinearHandle weight, Tensor residual) = 0;
  // out = silu(x gate^T) * (x up^T); weight = gate over up
  virtual void LinearSiluMul(Tensor x, LinearHandle gate_up, Tensor out) = 0;
  // Rotates q and k of qkv [tokens, (heads + 2 kv_heads) head_dim] by each token's position (halves
  // rotated, the Hugging Face layout) and writes k and v to the token's place in the paged cache.
  virtual void RopeAndStore(int32_t layer, Tensor qkv) = 0;
  // Causal attention of every token's q over its own sequence's cache, itself included:
  // out [tokens, heads head_dim]. Of the qkv that RopeAndStore saw last; decode rows and prefill
  // rows in one call.
  virtual void Attention(int32_t layer, Tensor qkv, Tensor out) = 0;

  // Logits are wanted for few tokens: the rows that sample and, rarely, the tokens of prompts whose
  // logprobs were asked for. They are made in passes of at most max_sequences rows, so that the
  // logits buffer has one size. Pass 0 is the sampled rows; its launches do not depend on the rest.
  virtual int32_t LogitPasses() const = 0;
  // The pass's rows of x, packed; returns out with its rows set.
  virtual Tensor GatherLogitRows(int32_t pass, Tensor x, Tensor out) = 0;
  // Samples the pass's rows (pass 0) or scores the prompt's successors (later passes).
  virtual void Sample(int32_t pass, Tensor logits) = 0;

  // ---- For tests ----
  // `tensor`'s logits as the last step left them, [rows, cols]. Waits.
  virtual absl::StatusOr<std::vector<float>> ReadLogits(Tensor tensor) = 0;
};

}  // namespace behemoth::worker
