#include <algorithm>

#include "kernels/w4a16_gemm/decode_gemm.h"
#include "kernels/w4a16_gemm/prefill_gemm.h"

namespace behemoth::kernels {
namespace {

constexpr int kMaxStages = 32;
constexpr int kBarrierBytes = 16 * kMaxStages;  // full and empty barriers
// What a kernel's shared memory holds beside its stages: barriers, and static variables that the
// launch adds by itself.
constexpr int kBesideStages = 1024;
constexpr int kAloneRingBytes = 160 << 10;  // more than half of any SM's shared memory
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

bool HasFamily(GemmFamily family, const DeviceLimits& limits) {
  switch (family) {
    case GemmFamily::kAsync:
      return limits.is_supported();
    case GemmFamily::kBulk:
      return limits.has_bulk_copy();
    case GemmFamily::kWgmma:
      return limits.has_wgmma();
  }
  return false;
}

// wgmma's ring takes half the shared memory, so that the next kernel's blocks start beside this
// one's. Up to 8 rows that must not happen: two blocks of one GEMM that land on one SM, while small
// kernels run between, leave another SM idle (a whole step on an H100: 32.9 ms with 113 KB, 24.1
// with 160 KB, 24.2 with 205 KB).
int RingStages(const DecodeGemmConfig& choice, WeightKind weight, const DeviceLimits& limits) {
  const bool wgmma = choice.family == GemmFamily::kWgmma;
  const int ring_bytes = wgmma ? limits.shared_bytes_per_sm / 2 : kAloneRingBytes;
  return std::max((ring_bytes - kBesideStages) / StageBytes(choice, weight), 4);
}

// The one map of a matrix, whatever the rows and the kernel: a row's bits follow from it.
StripeMap MapOf(int n, int k, WeightKind weight, const DeviceLimits& limits) {
  StripeMap map = {.tiles = RowTiles(n), .steps_per_tile = k / UnitColumns(weight)};
  map.blocks = static_cast<int>(
      std::min<int64_t>(limits.sm_count, int64_t{1} * map.tiles * map.steps_per_tile));
  return map;
}

int64_t TokenTiles(const PrefillGemmShape& shape) {
  return (int64_t{shape.m} + kPrefillTileTokens - 1) / kPrefillTileTokens;
}

// One row is legal wherever m rows are: the count of tiles bounds m itself.
bool IsLegal(const PrefillGemmShape& shape, const DeviceLimits& limits) {
  return shape.m >= 1 && IsLegal({1, shape.n, shape.k, shape.weight}) &&
         limits.sm_count <= kMaxBlocks && TokenTiles(shape) * RowTiles(shape.n) <= kMaxSteps;
}

}  // namespace

std::optional<DecodeGemmConfig> CompleteDecodeGemm(DecodeGemmConfig choice,
                                                   const DecodeGemmShape& shape,
                                                   const DeviceLimits& limits) {
  if (!IsLegal(shape) || !HasFamily(choice.family, limits) || limits.sm_count > kMaxBlocks) {
    return std::nullopt;
  }
  choice.map = MapOf(shape.n, shape.k, shape.weight, limits);
  const int fitting =
      (limits.shared_bytes_per_block - kBesideStages) / StageBytes(choice, shape.weight);
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
  // wgmma from 16 rows on (README.md).
  choice.family = limits.has_wgmma() && choice.padded_rows >= 16 ? GemmFamily::kWgmma
                  : limits.has_bulk_copy()                       ? GemmFamily::kBulk
                                                                 : GemmFamily::kAsync;
  choice.stages = RingStages(choice, shape.weight, limits);
  choice.prefetch_steps = 0;
  return CompleteDecodeGemm(choice, shape, limits);
}

namespace {

// The rows of the window that holds the last 1..128 rows.
int WindowRows(int rows, GemmFamily family) {
  if (rows <= 64) return std::max(16, PaddedRows(rows));
  if (family != GemmFamily::kWgmma) return 128;
  return rows <= 80 ? 80 : rows <= 96 ? 96 : 128;
}

// What a window costs beside its steps (its first stage, the epilogue, the last block's adding of
// up to five pieces), in steps of 128 rows.
struct WindowEnds {
  double full, last_128, last_fewer;
};
// wgmma: a fit to an H100's times for 72 to 1,024 rows. mma.sync, whose steps take longer: in
// prefill_chain's sweep on an H100 (4bf4bac) these miss the faster walk for qkv at 256, 512 and
// 1,024 rows alone, by 12 to 18 %; there sm_80's own code has tiles as fast as those stripes.
constexpr WindowEnds kWgmmaEnds = {29, 19, 8};
constexpr WindowEnds kAsyncEnds = {12, 8, 4};

// The time of a window's step in that of 128 rows.
double StepTime(int rows, GemmFamily family) {
  if (rows == 128) return 1;
  if (family == GemmFamily::kAsync) return rows == 64 ? 0.6 : rows == 32 ? 0.4 : 0.3;
  return rows >= 80 ? 0.8 : rows == 64 ? 0.7 : 0.55;
}

// In steps of 128 rows.
double StripesTime(int m, const StripeMap& map, GemmFamily family) {
  const WindowEnds& ends = family == GemmFamily::kWgmma ? kWgmmaEnds : kAsyncEnds;
  const double steps = static_cast<double>(map.steps()) / map.blocks;
  const int full_windows = (m - 1) / kPrefillTileTokens;
  const int last = WindowRows(m - full_windows * kPrefillTileTokens, family);
  return full_windows * (steps + ends.full) + StepTime(last, family) * steps +
         (last == 128 ? ends.last_128 : ends.last_fewer);
}

std::optional<DecodeGemmConfig> WindowOf(int rows, const PrefillGemmConfig& prefill,
                                         const PrefillGemmShape& shape,
                                         const DeviceLimits& limits) {
  DecodeGemmConfig choice;
  choice.release_lanes = prefill.release_lanes;
  choice.family = prefill.family;
  choice.padded_rows = WindowRows(rows, prefill.family);
  choice.stages = RingStages(choice, shape.weight, limits);
  return CompleteDecodeGemm(choice, {1, shape.n, shape.k, shape.weight}, limits);
}

std::optional<PrefillGemmConfig> WithWindows(PrefillGemmConfig choice,
                                             const PrefillGemmShape& shape,
                                             const DeviceLimits& limits) {
  if (choice.family == GemmFamily::kBulk) return std::nullopt;  // it has no window of 128 rows
  auto full = WindowOf(kPrefillTileTokens, choice, shape, limits);
  // 99 KB hold two stages of 128 rows of most kinds, and two of 64 rows of every kind.
  if (!full) full = WindowOf(kPrefillTileTokens / 2, choice, shape, limits);
  if (!full) return std::nullopt;
  const auto last = WindowOf((shape.m - 1) % full->padded_rows + 1, choice, shape, limits);
  if (!last) return std::nullopt;
  choice.full_window = *full, choice.last_window = *last;
  return choice;
}

}  // namespace

std::optional<PrefillGemmConfig> CompletePrefillGemm(PrefillGemmConfig choice,
                                                     const PrefillGemmShape& shape,
                                                     const DeviceLimits& limits) {
  if (!IsLegal(shape, limits)) return std::nullopt;
  choice.map = MapOf(shape.n, shape.k, shape.weight, limits);
  choice.padded_rows = static_cast<int>(TokenTiles(shape)) * kPrefillTileTokens;
  if (choice.walk == PrefillWalk::kStripes) return WithWindows(choice, shape, limits);
  const bool has_tile = choice.family == GemmFamily::kWgmma ||
                        (choice.family == GemmFamily::kAsync && choice.tile_rows == kUnitRows);
  if (!has_tile || !HasFamily(choice.family, limits)) return std::nullopt;
  const int parts = kUnitRows / choice.tile_rows;
  const int64_t tiles = TokenTiles(shape) * RowTiles(shape.n) * parts;
  const int stage_bytes =
      UnitBytes(shape.weight) / parts + UnitColumns(shape.weight) * kPrefillTileTokens * 2;
  choice.tiles = static_cast<int>(tiles);
  choice.blocks = static_cast<int>(std::min<int64_t>(limits.sm_count, tiles));
  choice.stages =
      std::min((limits.shared_bytes_per_block - kBesideStages) / stage_bytes, kMaxStages);
  if (choice.stages < 2) return std::nullopt;
  choice.shared_bytes = static_cast<size_t>(choice.stages) * stage_bytes + kBarrierBytes;
  return choice;
}

std::optional<PrefillGemmConfig> SelectPrefillGemm(const PrefillGemmShape& shape,
                                                   const DeviceLimits& limits) {
  if (!IsLegal(shape, limits)) return std::nullopt;
  // The time of each walk in that of one step of 256 weight rows x 128 tokens (1.6 us on an H100),
  // of the slowest block. A wave of half tiles takes 0.63 of one of whole tiles, as it reads the
  // activations twice as often.
  const int64_t whole_tiles = TokenTiles(shape) * RowTiles(shape.n);
  const auto waves = [&](int64_t tiles) {
    return static_cast<double>((tiles + limits.sm_count - 1) / limits.sm_count);
  };
  const StripeMap map = MapOf(shape.n, shape.k, shape.weight, limits);
  const double whole = waves(whole_tiles) * map.steps_per_tile;
  const double half = 0.63 * waves(2 * whole_tiles) * map.steps_per_tile;
  PrefillGemmConfig choice;
  choice.family = limits.has_wgmma() ? GemmFamily::kWgmma : GemmFamily::kAsync;
  const bool halves = choice.family == GemmFamily::kWgmma && half < whole;
  choice.tile_rows = halves ? kUnitRows / 2 : kUnitRows;
  choice.walk = PrefillWalk::kTiles;
  if (StripesTime(shape.m, map, choice.family) >= (halves ? half : whole)) {
    const auto tiles = CompletePrefillGemm(choice, shape, limits);
    if (tiles) return tiles;  // two stages may not fit where windows of 64 rows do
  }
  choice.walk = PrefillWalk::kStripes;
  return CompletePrefillGemm(choice, shape, limits);
}

size_t PartialsBytes(const DecodeGemmConfig& config) {
  return size_t{2} * config.map.blocks * kUnitRows * config.padded_rows * sizeof(float);
}

size_t PartialsBytes(const PrefillGemmConfig& config) {
  // Tiles: one sum a block. Stripes, which any smaller batch may take: two pieces a block.
  const int pieces = std::max(config.blocks, 2 * config.map.blocks);
  return size_t{1} * pieces * kUnitRows * kPrefillTileTokens * sizeof(float);
}

size_t CountersBytes(const DecodeGemmConfig& config) {
  return size_t{1} * config.map.tiles * sizeof(uint32_t);
}

size_t CountersBytes(const PrefillGemmConfig& config) {
  return size_t{1} * config.map.tiles * sizeof(uint32_t);
}

}  // namespace behemoth::kernels
