#include <algorithm>

#include "kernels/w4a16_gemm/decode_gemm.h"

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

GemmFamily SelectFamily(int padded_rows, const DeviceLimits& limits) {
  return limits.has_wgmma() && padded_rows >= 64 ? GemmFamily::kWgmma : GemmFamily::kBulk;
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
  choice.family = SelectFamily(choice.padded_rows, limits);
  choice.stages = kMaxStages;
  choice.prefetch_steps = 24;
  return CompleteDecodeGemm(choice, shape, limits);
}

size_t PartialsBytes(const DecodeGemmConfig& config) {
  return size_t{2} * config.map.blocks * kUnitRows * config.padded_rows * sizeof(float);
}

size_t CountersBytes(const DecodeGemmConfig& config) {
  return size_t{1} * config.map.tiles * sizeof(uint32_t);
}

}  // namespace behemoth::kernels
