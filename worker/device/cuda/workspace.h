// All device memory of a backend beside weights, activations and KV, as one sum.
#pragma once

#include <absl/status/statusor.h>

#include <array>
#include <vector>

#include "kernels/paged_attention/paged_attention.h"
#include "worker/device/cuda/linear_store.h"
#include "worker/device/cuda/memory.h"
#include "worker/device/cuda/slot_states.h"
#include "worker/device/cuda/step_inputs.h"
#include "worker/device/cuda/step_results.h"

namespace behemoth::worker::cuda {

// Rows of one decode attention launch: its partial sums are what limits it, 16 to 64 chunks of
// every head (123B, 64 rows: 0.8 MiB a row).
inline constexpr int32_t kDecodeAttentionRows = 64;

struct Workspace {
  StepArrays inputs;
  SlotArrays slots;
  ResultArrays results;
  GemmScratch gemm;
  int32_t* slot_token;       // [S]: what each slot sampled last
  uint32_t* sample_scratch;  // two lines of V words a row
  float* inverse_frequency;  // [head_dim / 2]
  float* kv_scales;          // [layers][k, v][kv_heads]
  kernels::bf16* q;          // [T, heads * head_dim], rotated
  // Of several ranks, else null: this rank's part of a sum [T, hidden] and of the logits
  // [S, V / ranks]. Where peers read them, each in two buffers in turn, and the flags by which
  // ranks meet; else in one buffer, and all ranks' logits [ranks][S, V / ranks].
  std::array<kernels::bf16*, 2> partials;
  std::array<float*, 2> logits_parts;
  uint32_t* rank_flags;
  float* all_logits;
  void* attention;             // of kDecodeAttentionRows rows
  size_t attention_bytes = 0;  // zeroed once

  static absl::StatusOr<Workspace> Take(Arena& arena, const BackendSpec& spec,
                                        const std::vector<LinearPlan>& linears,
                                        const kernels::DeviceLimits& limits);
};

kernels::KvShape KvShapeOf(const BackendSpec& spec);
kernels::AttentionShape AttentionShapeOf(const BackendSpec& spec);

}  // namespace behemoth::worker::cuda
