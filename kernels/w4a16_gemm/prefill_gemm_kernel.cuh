// The prefill GEMM's kernel, kTiles. One block per SM walks over tiles of 256 or 128 weight rows x
// 128 tokens. wgmma: two consumer warpgroups (half the rows each, dequantised A from registers) and
// a producer warpgroup of which one warp works; mma.sync: eight warps that feed themselves. Tiles
// that run at the same time share their tokens' slices and their weights in L2. Included by .cu
// files only, as gemm_tile.cuh.
#pragma once

#include "kernels/common/launch.cuh"
#include "kernels/w4a16_gemm/gemm_tile.cuh"
#include "kernels/w4a16_gemm/prefill_gemm.h"

namespace behemoth::kernels {
namespace {

constexpr int kPrefillWarps = 8;
// Token tiles that run side by side: 8 x 3 MB of activations at k = 12,288, half of L2.
constexpr int kTokenTilesTogether = 8;

struct PrefillParameters {
  DecodeGemmArgs args;
  PrefillGemmConfig config;
  int row_tiles;
  int token_tiles;
  int steps;  // units of k
};

// Tile `index` of the walk: token tiles in groups, within a group tokens first, then weight rows.
struct TilePlace {
  int row_tile;
  int token_tile;
};
[[maybe_unused]] __device__ inline TilePlace PlaceOf(const PrefillParameters& p, int index) {
  const int group = index / (kTokenTilesTogether * p.row_tiles);
  const int first = group * kTokenTilesTogether;
  const int width = min(kTokenTilesTogether, p.token_tiles - first);
  const int within = index - group * kTokenTilesTogether * p.row_tiles;
  return {within / width, first + within % width};
}

// The tiles' units and slices in turn; nothing where a producer brings them.
template <typename V>
struct TileFeed {
  const PrefillParameters& p;
  const Ring<V>& ring;
  int index, step = 0;  // of the next to load
  StageSource from = {};
  Cursor cursor = {};

  __device__ TileFeed(const PrefillParameters& parameters, const Ring<V>& r)
      : p(parameters), ring(r), index(blockIdx.x) {
    Begin();
  }
  __device__ void Next() {
    if constexpr (V::kFeedsItself) {
      if (index >= p.config.tiles) return;
      CopyStage<V>(ring, cursor, from);
      from.unit += UnitBytes(V::kKind);
      from.act += int64_t{UnitColumns(V::kKind)} * p.config.padded_rows;
      if (++step < p.steps) return;
      step = 0, index += gridDim.x;
      Begin();
    }
  }
  __device__ void Begin() {
    const TilePlace place = PlaceOf(p, index);
    from = {static_cast<const uint8_t*>(p.args.weight) +
                int64_t{place.row_tile} * p.steps * UnitBytes(V::kKind),
            p.args.act + int64_t{place.token_tile} * kPrefillTileTokens * 8, p.config.padded_rows};
  }
};

// One warp: lane 0 brings the weights, each lane some of the slice's rows of eight columns.
template <typename V>
__device__ void ProduceTiles(const PrefillParameters& p, const Ring<V>& ring) {
  using R = Ring<V>;
  constexpr int kChunks = UnitColumns(V::kKind) / 8, kChunkBytes = kPrefillTileTokens * 16;
  const int lane = threadIdx.x % 32;
  const int64_t chunk_stride = int64_t{p.config.padded_rows} * 16;
  ptx::WaitForPredecessor();
  Cursor cursor;
  for (int index = blockIdx.x; index < p.config.tiles; index += gridDim.x) {
    const TilePlace place = PlaceOf(p, index);
    const auto* weight = static_cast<const uint8_t*>(p.args.weight) +
                         int64_t{place.row_tile / V::kParts} * p.steps * UnitBytes(V::kKind) +
                         place.row_tile % V::kParts * R::kUnitBytes;
    const auto* act = reinterpret_cast<const uint8_t*>(p.args.act) +
                      int64_t{place.token_tile} * kChunkBytes + lane * chunk_stride;
    for (int step = 0; step < p.steps; ++step) {
      // A fresh barrier is in the phase before its first: parity 1 passes at once.
      ptx::BarrierWait(ring.Empty(cursor.stage), cursor.parity ^ 1);
      const uint32_t full = ring.Full(cursor.stage);
      if (lane == 0) {
        ptx::BarrierExpectBytes(full, R::kStageBytes);
        ptx::BulkCopy(ring.Unit(cursor.stage), weight, R::kUnitBytes, full);
      }
      __syncwarp();
      if (lane < kChunks) {
        ptx::BulkCopy(ring.Slice(cursor.stage) + lane * kChunkBytes, act, kChunkBytes, full);
      }
      weight += UnitBytes(V::kKind);
      act += kChunks * chunk_stride;
      cursor.Advance(ring.stages);
    }
  }
}

// Adds a piece to the sum of those before it, as the decode GEMM's last block does: from zero, in
// order. A thread reads only what it wrote itself. `sum` lies in L2: 128 KB a block and border.
enum class Piece { kFirst, kMiddle, kLast };
template <typename V>
__device__ inline void AddPiece(Piece piece, float4* sum, typename V::Accumulators& acc) {
  constexpr int kBatch = 8;  // loads in flight: 32 registers beside the accumulators
  static_assert(V::kTiles * V::kQuads % kBatch == 0);
#pragma unroll
  for (int first = 0; first < V::kTiles * V::kQuads; first += kBatch) {
    float4 before[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      before[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      if (piece != Piece::kFirst) before[i] = __ldcg(sum + (first + i) * V::kConsumers);
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      float* a = acc[(first + i) / V::kQuads][(first + i) % V::kQuads];
      a[0] += before[i].x, a[1] += before[i].y, a[2] += before[i].z, a[3] += before[i].w;
      if (piece != Piece::kLast) {
        __stcg(sum + (first + i) * V::kConsumers, make_float4(a[0], a[1], a[2], a[3]));
      }
    }
  }
}

template <typename V>
__device__ void ConsumeTiles(const PrefillParameters& p, const Ring<V>& ring) {
  const int lane = threadIdx.x % 32, warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
  constexpr int kPieceQuads = V::kTiles * V::kQuads;
  float4* sum = reinterpret_cast<float4*>(p.args.partials) +
                int64_t{blockIdx.x} * kPieceQuads * V::kConsumers + threadIdx.x;
  const StripeMap& map = p.config.map;
  TileFeed<V> feed(p, ring);
  StartFeed(feed, ring.stages);
  Cursor cursor;
  for (int index = blockIdx.x; index < p.config.tiles; index += gridDim.x) {
    const TilePlace place = PlaceOf(p, index);
    const int map_tile = place.row_tile / V::kParts;
    const int first = map.FirstBlock(map_tile), last = map.LastBlock(map_tile);
    const int tile_begin = map_tile * p.steps, tile_end = tile_begin + p.steps;
    typename V::Accumulators acc;
    for (int block = first, step = tile_begin; block <= last; ++block) {
      const int end = min(map.Begin(block + 1), tile_end);
      Clear<V>(acc);
      if constexpr (V::kWgmma) {
        AccumulateWgmma<V>(acc, ring, end - step, cursor, warp, lane);
      } else {
        AccumulateMma<V>(acc, ring, end - step, cursor, feed, warp, lane);
      }
      if (block < last) AddPiece<V>(block == first ? Piece::kFirst : Piece::kMiddle, sum, acc);
      step = end;
    }
    if (first != last) AddPiece<V>(Piece::kLast, sum, acc);
    StoreTile<V>(p.args, place.row_tile * kUnitRows / V::kParts, warp, acc,
                 {place.token_tile * kPrefillTileTokens, p.config.padded_rows});
  }
}

template <typename V>
__device__ void RunBlock(const PrefillParameters& p, uint32_t shared) {
  const Ring<V> ring = {shared, p.config.stages, p.config.release_lanes};
  ptx::AllowSuccessor();
  if (threadIdx.x == 0) ring.Init();
  __syncthreads();
  if (!V::kFeedsItself && __shfl_sync(~0u, threadIdx.x / 128, 0) == kPrefillWarps / 4) {
    ptx::LowerRegisters<V::kProducerRegisters>();
    if (threadIdx.x / 32 == kPrefillWarps) ProduceTiles<V>(p, ring);
  } else {
    if constexpr (V::kMovesRegisters) ptx::RaiseRegisters<V::kConsumerRegisters>();
    ptx::WaitForPredecessor();
    ConsumeTiles<V>(p, ring);
  }
}

template <typename V>
__global__ void __launch_bounds__(V::kThreads, 1)
    PrefillGemmKernel(const __grid_constant__ PrefillParameters p) {
  extern __shared__ __align__(128) uint8_t shared[];
  if constexpr (kHasCode<V>) RunBlock<V>(p, ptx::SharedAddress(shared));
}

template <typename V>
KernelError LaunchTiles(const PrefillGemmConfig& config, const DecodeGemmArgs& args,
                        const LaunchContext& context) {
  const PrefillParameters p = {args, config, RowTiles(args.n) * V::kParts,
                               config.padded_rows / kPrefillTileTokens,
                               args.k / UnitColumns(V::kKind)};
  return Launch(PrefillGemmKernel<V>,
                {dim3(p.config.blocks), dim3(V::kThreads), p.config.shared_bytes}, context, p);
}

}  // namespace
}  // namespace behemoth::kernels
