// Decode GEMM: out[m, n] = act[m, k] * weight[n, k]^T for 1..64 rows, weights streamed once.
//
// Limit: device memory, up to about 40 rows of the 123B matrices on an H100; above that the tensor
// cores' rate. Numbers in README.md.
// A row's bits depend on the weights, its activations and StripeMap (shape, blocks), not on m, not
// on the kernel family, not on stages; the prefill GEMM gives the same bits. Rows >= m of `act` may
// hold anything, NaN included.
//
// Usage: Select once per (shape, m) -> Launch per call, capturable in a CUDA graph.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "kernels/common/bf16.h"
#include "kernels/common/device_limits.h"
#include "kernels/common/kernel_error.h"
#include "kernels/common/launch_context.h"
#include "kernels/w4a16_gemm/packed_layout.h"
#include "kernels/w4a16_gemm/stripe_map.h"

namespace behemoth::kernels {

struct DecodeGemmShape {
  int m = 0;  // 1..64
  int n = 0;  // rows of the weight matrix (of both halves when they are interleaved)
  int k = 0;  // a multiple of UnitColumns(weight)
  WeightKind weight = WeightKind::kInt4;
};

enum class GemmFamily {
  kAsync,  // mma.sync fed by cp.async: sm_80 and newer
  kBulk,   // mma.sync fed by bulk copies: sm_90 and newer
  kWgmma,  // wgmma, A from registers: sm_90a
};

struct DecodeGemmConfig {
  GemmFamily family = GemmFamily::kBulk;
  int padded_rows = 8;     // 8, 16, 32, 64: PaddedRows(m), the activations' own padding; 80, 96
                           // (kWgmma), 128 (kWgmma, kAsync): windows of a larger batch
  int stages = 0;          // ring depth
  int prefetch_steps = 0;  // steps of the next matrix that each block asks into L2; not kAsync
  StripeMap map;
  size_t shared_bytes = 0;
  // Lanes of each warp that release a stage of the ring: 1, or 32 for compute-sanitizer's
  // racecheck, which does not know that __syncwarp orders the other lanes' reads before the one
  // arrival.
  int release_lanes = 1;
};

enum class GemmEpilogue {
  kStore,        // out = sum
  kAddResidual,  // out = sum + residual
  kSiluMul,      // n / 2 columns: out = silu(gate) * up; the weight was packed interleaved
};

enum class GemmOutput {
  kRowMajor,       // bf16 [m, columns]
  kActivation,     // bf16 [columns / 8][padded_rows][8], rows >= m untouched
  kRowMajorFloat,  // float [m, columns]
};

struct DecodeGemmArgs {
  const void* weight = nullptr;    // packed, 128-byte aligned
  const bf16* act = nullptr;       // [k / 8][padded_rows][8], 16-byte aligned
  void* out = nullptr;             // 16-byte aligned
  const bf16* residual = nullptr;  // [m, n] row-major; kAddResidual only; may equal `out`
  float* partials = nullptr;       // PartialsBytes(), 16-byte aligned; contents do not matter
  uint32_t* counters = nullptr;    // CountersBytes(), zero before the first launch and after each
  int m = 0;
  int n = 0;
  int k = 0;
  GemmEpilogue epilogue = GemmEpilogue::kStore;
  GemmOutput output = GemmOutput::kRowMajor;
  // The matrix of the next GEMM on this stream, or null: its stripes' beginnings are asked into L2.
  const void* next_weight = nullptr;
  StripeMap next_map;
  int next_unit_bytes = 0;
  // A window of a larger batch: rows first_row .. first_row + padded_rows - 1 of the m of an `act`
  // (and packed `out`) that is padded to act_rows. 0: the batch is the config's padded_rows.
  int act_rows = 0;
  int first_row = 0;
};

// nullopt: m, n, k out of range, the device is older than sm_80
// or has too little shared memory for two stages.
std::optional<DecodeGemmConfig> SelectDecodeGemm(const DecodeGemmShape& shape,
                                                 const DeviceLimits& limits);

// Recomputes what follows from family, padded_rows and stages (map, shared_bytes), whatever m is;
// benches and tests use it to force a choice. nullopt: does not fit, or the device lacks the
// family.
std::optional<DecodeGemmConfig> CompleteDecodeGemm(DecodeGemmConfig choice,
                                                   const DecodeGemmShape& shape,
                                                   const DeviceLimits& limits);

// Scratch that all GEMMs of a stream share: the largest over its configs.
size_t PartialsBytes(const DecodeGemmConfig& config);
size_t CountersBytes(const DecodeGemmConfig& config);

// Enqueues one GEMM. CUDA builds only.
KernelError LaunchDecodeGemm(const DecodeGemmConfig& config, WeightKind weight,
                             const DecodeGemmArgs& args, const LaunchContext& context);

}  // namespace behemoth::kernels
