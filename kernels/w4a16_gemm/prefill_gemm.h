// Prefill GEMM: the product of decode_gemm.h for any number of rows, from the same packed weights.
//
// Limit: the tensor cores. 2 m n k FLOP; a tile of 256 weight rows x 128 tokens reads 132 B of
// weights and 256 B of activations per column of k, 24 B a clock of the L2's about 30.
// A row's bits depend on the weights and its activations only: not on m, not on the chunk. They are
// not the decode GEMM's bits, which splits k over blocks.
#pragma once

#include <optional>

#include "kernels/w4a16_gemm/decode_gemm.h"

namespace behemoth::kernels {

inline constexpr int kPrefillTileTokens = 128;

struct PrefillGemmShape {
  int m = 0;  // 1 or more
  int n = 0;  // as in DecodeGemmShape
  int k = 0;
  WeightKind weight = WeightKind::kInt4;
};

struct PrefillGemmConfig {
  int padded_rows = 0;  // m rounded up to whole tiles: the padding of `act` and packed `out`
  int tile_rows = 0;    // 256, or 128 where that fills the last wave of blocks better
  int tiles = 0;        // of tile_rows weight rows x 128 tokens
  int blocks = 0;
  int stages = 0;
  size_t shared_bytes = 0;
};

// nullopt: n or k out of range, or the device has no wgmma (it needs sm_90a).
std::optional<PrefillGemmConfig> SelectPrefillGemm(const PrefillGemmShape& shape,
                                                   const DeviceLimits& limits);

// Enqueues one GEMM; args as for the decode GEMM with `padded_rows` of the config, m = shape.m;
// partials, counters and next_weight are not used. CUDA builds only.
KernelError LaunchPrefillGemm(const PrefillGemmConfig& config, WeightKind weight,
                              const DecodeGemmArgs& args, const LaunchContext& context);

}  // namespace behemoth::kernels
