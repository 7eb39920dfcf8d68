// Prefill GEMM: the product of decode_gemm.h for any number of rows, from the same packed weights.
//
// Limit: the tensor cores. 2 m n k FLOP; a tile of 256 weight rows x 128 tokens reads 132 B of
// weights and 256 B of activations per column of k, 24 B a clock of the L2's about 30.
// Two walks. kTiles: a block owns whole tiles, weights come from L2; its last wave of blocks is
// rarely full. kStripes: the decode GEMM with windows of up to 128 rows; every block has the same
// work, and each window reads the weights from memory again. Stripes for few rows, tiles for many.
// A row's bits are the decode GEMM's: where one of its stripes ends inside a tile, the sum begins
// anew and the pieces are added in the same order. So they depend on the weights, the row's
// activations and StripeMap only: not on m, not on the chunk, not on which of the two kernels ran.
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

enum class PrefillWalk { kTiles, kStripes };

struct PrefillGemmConfig {
  PrefillWalk walk = PrefillWalk::kTiles;
  int padded_rows = 0;  // m rounded up to whole tiles: the padding of `act` and packed `out`
  int tile_rows = 0;    // 256, or 128 (kWgmma) where that fills the last wave of blocks better
  int tiles = 0;        // of tile_rows weight rows x 128 tokens
  int blocks = 0;
  int stages = 0;
  size_t shared_bytes = 0;
  // The decode GEMM's of the same matrix: where a tile's sum is cut into pieces.
  StripeMap map = {};
  // kStripes: of as many rows as the windows hold (128, or 64 where that is all that fits), and of
  // those that are left.
  DecodeGemmConfig full_window = {}, last_window = {};
  GemmFamily family = GemmFamily::kWgmma;  // or kAsync
  int release_lanes = 1;                   // as in DecodeGemmConfig
};

// nullopt: m, n, k out of range, or the device is older than sm_80.
std::optional<PrefillGemmConfig> SelectPrefillGemm(const PrefillGemmShape& shape,
                                                   const DeviceLimits& limits);

// Recomputes what follows from walk, family and tile_rows (256 or 128); benches and tests use it to
// force a choice. nullopt: does not fit, or the device lacks the family.
std::optional<PrefillGemmConfig> CompletePrefillGemm(PrefillGemmConfig choice,
                                                     const PrefillGemmShape& shape,
                                                     const DeviceLimits& limits);

// Scratch, as for the decode GEMM; all GEMMs of a stream share the largest over their configs. What
// a config says is enough for any number of rows of the same matrix up to its own.
size_t PartialsBytes(const PrefillGemmConfig& config);
size_t CountersBytes(const PrefillGemmConfig& config);

// Enqueues one GEMM; args as for the decode GEMM with `padded_rows` of the config, m = shape.m;
// next_weight is not used. CUDA builds only.
KernelError LaunchPrefillGemm(const PrefillGemmConfig& config, WeightKind weight,
                              const DecodeGemmArgs& args, const LaunchContext& context);

}  // namespace behemoth::kernels
