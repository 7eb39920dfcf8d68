#include <algorithm>

#include "kernels/w4a16_gemm/decode_gemm.h"
#include "kernels/w4a16_gemm/prefill_gemm.h"

namespace behemoth::kernels {
namespace {

constexpr int kBarrierBytes = 1024;  // full and empty barriers of at most 32 stages, flags
constexpr int kMaxStages = 32;
// StripeMap multiplies steps by blocks in 32 bits.
constexpr int kMaxBlocks = 1 << 10;
constexpr int64_t kMaxSteps = int64_t{1} << 22;

int StageBytes(const DecodeGemmConfig& config, WeightKind weight) {
  return UnitBytes(weight) + UnitColumns(weight) * config.padded_rows * 2;
}

bool IsLegal(const DecodeGemmShape& shape) {
  return shape.m >= 1 && shape.m <= kMaxDecodeRows && shape.n >= 1 && shape.k >= 1 &&
         shape.k % UnitColumns(shape.weight) == 0 &&
         int64_t{1} * RowTiles(shape.n) * (shape.k / UnitColumns(shape.weight)) < kMaxSteps;
}

}  // namespace

std::optional<DecodeGemmConfig> CompleteDecodeGemm(DecodeGemmConfig choice,
                                                   const DecodeGemmShape& shape,
                                                   const DeviceLimits& limits) {
  if (!IsLegal(shape) || !limits.has_bulk_copy() || limits.sm_count > kMaxBlocks) {
    return std::nullopt;
  }
  const int steps_per_tile = shape.k / UnitColumns(shape.weight);
  const int tiles = RowTiles(shape.n);
  const int64_t steps = int64_t{1} * tiles * steps_per_tile;
  choice.map = {.tiles = tiles,
                .steps_per_tile = steps_per_tile,
                .blocks = static_cast<int>(std::min<int64_t>(limits.sm_count, steps))};
  const int fitting =
      (limits.shared_bytes_per_block - kBarrierBytes) / StageBytes(choice, shape.weight);
  choice.stages = std::min({choice.stages, fitting, kMaxStages});
  if (choice.stages < 2) return std::nullopt;
  choice.shared_bytes =
      static_cast<size_t>(choice.stages) * StageBytes(choice, shape.weight) + kBarrierBytes;
  return choice;
}

std::optional<DecodeGemmConfig> SelectDecodeGemm(const DecodeGemmShape& shape,
                                                 const DeviceLimits& limits) {
  if (!IsLegal(shape)) return std::nullopt;
  DecodeGemmConfig choice;
  choice.padded_rows = PaddedRows(shape.m);
  // As measured on an H200 (README.md): wgmma from 16 rows on. A ring of half the shared memory
  // lets the next kernel's blocks start beside this one's; at 8 rows that is worth more than a deep
  // ring.
  const bool wgmma = limits.has_wgmma() && choice.padded_rows >= 16;
  choice.family = wgmma ? GemmFamily::kWgmma : GemmFamily::kBulk;
  const int half =
      (limits.shared_bytes_per_sm / 2 - kBarrierBytes) / StageBytes(choice, shape.weight);
  choice.stages = std::max(half, 4);
  choice.prefetch_steps = 0;
  return CompleteDecodeGemm(choice, shape, limits);
}

std::optional<PrefillGemmConfig> SelectPrefillGemm(const PrefillGemmShape& shape,
                                                   const DeviceLimits& limits) {
  // One row is legal wherever m rows are: the tiles below bound m themselves.
  if (shape.m < 1 || !IsLegal({1, shape.n, shape.k, shape.weight}) || !limits.has_wgmma()) {
    return std::nullopt;
  }
  const int64_t token_tiles = (int64_t{shape.m} + kPrefillTileTokens - 1) / kPrefillTileTokens;
  const int64_t whole_tiles = token_tiles * RowTiles(shape.n);
  if (whole_tiles > kMaxSteps) return std::nullopt;
  // All blocks wait for the last wave. A wave of half tiles takes 0.63 of one of whole tiles, as it
  // reads the activations twice as often (128 and 256 tokens on an H200).
  const auto waves = [&](int64_t tiles) { return (tiles + limits.sm_count - 1) / limits.sm_count; };
  const bool half = 100 * waves(whole_tiles) > 63 * waves(2 * whole_tiles);
  const int64_t tiles = half ? 2 * whole_tiles : whole_tiles;
  const int stage_bytes =
      UnitBytes(shape.weight) / (half ? 2 : 1) + UnitColumns(shape.weight) * kPrefillTileTokens * 2;
  PrefillGemmConfig config;
  config.tile_rows = half ? kUnitRows / 2 : kUnitRows;
  config.padded_rows = static_cast<int>(token_tiles) * kPrefillTileTokens;
  config.tiles = static_cast<int>(tiles);
  config.blocks = static_cast<int>(std::min<int64_t>(limits.sm_count, tiles));
  config.stages =
      std::min((limits.shared_bytes_per_block - kBarrierBytes) / stage_bytes, kMaxStages);
  if (config.stages < 2) return std::nullopt;
  config.shared_bytes = static_cast<size_t>(config.stages) * stage_bytes + kBarrierBytes;
  return config;
}

size_t PartialsBytes(const DecodeGemmConfig& config) {
  return size_t{2} * config.map.blocks * kUnitRows * config.padded_rows * sizeof(float);
}

size_t CountersBytes(const DecodeGemmConfig& config) {
  return size_t{1} * config.map.tiles * sizeof(uint32_t);
}

}  // namespace behemoth::kernels
