// The decode GEMM's kernel, whatever its family. One block per SM: 8 or 16 consumer warps (two or
// one 16-row m-tiles of a 256-row tile each) and a ring of weight units, which one producer warp
// keeps full by bulk copies, or the consumers themselves by cp.async. Included by .cu files only,
// as gemm_tile.cuh.
#pragma once

#include "kernels/common/launch.cuh"
#include "kernels/common/ptx.cuh"
#include "kernels/w4a16_gemm/decode_gemm.h"
#include "kernels/w4a16_gemm/gemm_tile.cuh"

namespace behemoth::kernels {
namespace {

constexpr int kConsumerBarrier = 1;

struct KernelParameters {
  DecodeGemmArgs args;
  StripeMap map;
  int stages;
  int prefetch_steps;
  int release_lanes;
};

// One thread. Weights are constant, so it fills the ring with them before it waits for the
// predecessor grid; activations follow after the wait.
template <typename V>
__device__ void Produce(const KernelParameters& p, const Ring<V>& ring, int begin, int end) {
  using R = Ring<V>;
  const uint64_t policy = ptx::EvictFirstPolicy();
  const auto* weight = static_cast<const uint8_t*>(p.args.weight);
  const auto* act = reinterpret_cast<const uint8_t*>(p.args.act);
  const auto load_unit = [&](int step, int stage) {
    ptx::BarrierExpectBytes(ring.Full(stage), R::kStageBytes);
    ptx::BulkCopyHinted(ring.Unit(stage), weight + int64_t{step} * R::kUnitBytes, R::kUnitBytes,
                        ring.Full(stage), policy);
  };
  int column = begin % p.map.steps_per_tile;  // of the next slice
  const auto load_slice = [&](int stage) {
    if (p.args.act_rows == V::kRows) {
      ptx::BulkCopy(ring.Slice(stage), act + int64_t{column} * R::kSliceBytes, R::kSliceBytes,
                    ring.Full(stage));
    } else {
      constexpr int kChunks = UnitColumns(V::kKind) / 8, kChunkBytes = V::kRows * 16;
      for (int chunk = 0; chunk < kChunks; ++chunk) {
        const int64_t row = (int64_t{column} * kChunks + chunk) * p.args.act_rows;
        ptx::BulkCopy(ring.Slice(stage) + chunk * kChunkBytes, act + (row + p.args.first_row) * 16,
                      kChunkBytes, ring.Full(stage));
      }
    }
    if (++column == p.map.steps_per_tile) column = 0;
  };
  const int first = min(end, begin + p.stages);
  for (int step = begin; step < first; ++step) load_unit(step, step - begin);
  ptx::WaitForPredecessor();
  for (int step = begin; step < first; ++step) load_slice(step - begin);
  int stage = 0;
  uint32_t parity = 0;
  for (int step = first; step < end; ++step) {
    ptx::BarrierWait(ring.Empty(stage), parity);
    load_unit(step, stage);
    load_slice(stage);
    if (++stage == p.stages) stage = 0, parity ^= 1;
  }
  if (p.args.next_weight == nullptr || blockIdx.x >= p.args.next_map.blocks) return;
  const StripeMap& next = p.args.next_map;
  const int next_begin = next.Begin(blockIdx.x);
  const int next_end = min(next.Begin(blockIdx.x + 1), next_begin + p.prefetch_steps);
  for (int step = next_begin; step < next_end; ++step) {
    ptx::BulkPrefetchL2(
        static_cast<const uint8_t*>(p.args.next_weight) + int64_t{step} * p.args.next_unit_bytes,
        p.args.next_unit_bytes);
  }
}

// The stripe's units and slices in turn; nothing where a producer brings them.
template <typename V>
struct StripeFeed {
  const KernelParameters& p;
  const Ring<V>& ring;
  int step, end;  // the next to load, and the stripe's end
  Cursor cursor = {};

  __device__ void Next() {
    if constexpr (V::kFeedsItself) {
      if (step == end) return;
      using R = Ring<V>;
      const int64_t chunk = int64_t{step % p.map.steps_per_tile} * (UnitColumns(V::kKind) / 8);
      CopyStage<V>(
          ring, cursor,
          {static_cast<const uint8_t*>(p.args.weight) + int64_t{step} * R::kUnitBytes,
           p.args.act + (chunk * p.args.act_rows + p.args.first_row) * 8, p.args.act_rows});
      ++step;
    }
  }
};

// A tile that several blocks share: its blocks, in the order in which their pieces are added.
struct SharedTile {
  int tile, first, last;
  __device__ SharedTile(const StripeMap& map, int index)
      : tile(index), first(map.FirstBlock(index)), last(map.LastBlock(index)) {}
  __device__ bool is_whole() const { return first == last; }
  __device__ uint32_t pieces() const { return static_cast<uint32_t>(last - first + 1); }
  // Slot 1: the tile begins in the block's stripe, which only its first block's does.
  template <typename V>
  __device__ float4* Piece(const DecodeGemmArgs& args, int block) const {
    return reinterpret_cast<float4*>(args.partials) +
           int64_t{2 * block + (block == first)} * V::kQuads * kMTiles * 32;
  }
};

// Leaves a piece in its slot; returns, to thread 0, how many of the tile's pieces were there
// before.
template <typename V>
__device__ uint32_t StorePiece(const KernelParameters& p, const SharedTile& tile,
                               const typename V::Accumulators& acc) {
  float4* mine = tile.template Piece<V>(p.args, blockIdx.x) + threadIdx.x;
#pragma unroll
  for (int q = 0; q < V::kTiles * V::kQuads; ++q) {
    const float* a = acc[q / V::kQuads][q % V::kQuads];
    __stcg(mine + q * V::kConsumers, make_float4(a[0], a[1], a[2], a[3]));
  }
  ptx::NamedBarrier(kConsumerBarrier, V::kConsumers);
  return threadIdx.x == 0 ? ptx::AddAcquireRelease(p.args.counters + tile.tile) : 0;
}

// Adds all pieces of a tile in block order.
template <typename V>
__device__ void AddPieces(const KernelParameters& p, const SharedTile& tile, int warp) {
  constexpr int kQuads = V::kQuads, kPieceQuads = V::kTiles * V::kQuads;
  typename V::Accumulators acc;
  Clear<V>(acc);
#pragma unroll(kPieceQuads < 4 ? 4 / kPieceQuads : 1)
  for (int block = tile.first; block <= tile.last; ++block) {
    const float4* other = tile.template Piece<V>(p.args, block) + threadIdx.x;
#pragma unroll
    for (int q = 0; q < kPieceQuads; ++q) {
      const float4 v = __ldcg(other + q * V::kConsumers);
      float* a = acc[q / kQuads][q % kQuads];
      a[0] += v.x, a[1] += v.y, a[2] += v.z, a[3] += v.w;
    }
  }
  StoreTile<V>(p.args, tile.tile * kUnitRows, warp, acc, {p.args.first_row, p.args.act_rows});
}

// Of a stripe's tiles only the first and the last may be shared with other blocks. What the
// counters said when their pieces were stored is looked at when the stripe has ended: the block
// whose piece came last adds them all.
template <typename V>
__device__ void Consume(const KernelParameters& p, const Ring<V>& ring, int begin, int end) {
  __shared__ uint32_t before[2];
  // The shuffle tells the compiler that the warp index is uniform, which wgmma's pipelining needs.
  const int lane = threadIdx.x % 32, warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
  const SharedTile head(p.map, begin / p.map.steps_per_tile);
  const SharedTile tail(p.map, (end - 1) / p.map.steps_per_tile);
  uint32_t before_head = ~0u, before_tail = ~0u;
  StripeFeed<V> feed = {p, ring, begin, end};
  StartFeed(feed, ring.stages);
  Cursor cursor;
  for (int step = begin, tile = head.tile; step < end; ++tile) {
    const int steps = min(end, (tile + 1) * p.map.steps_per_tile) - step;
    typename V::Accumulators acc;
    Clear<V>(acc);
    if constexpr (V::kWgmma) {
      AccumulateWgmma<V>(acc, ring, steps, cursor, warp, lane);
    } else {
      AccumulateMma<V>(acc, ring, steps, cursor, feed, warp, lane);
    }
    if (tile == tail.tile && !tail.is_whole()) {
      before_tail = StorePiece<V>(p, tail, acc);
    } else if (tile == head.tile && !head.is_whole()) {
      before_head = StorePiece<V>(p, head, acc);
    } else {
      StoreTile<V>(p.args, tile * kUnitRows, warp, acc, {p.args.first_row, p.args.act_rows});
    }
    step += steps;
  }
  if (head.is_whole() && tail.is_whole()) return;
  if (threadIdx.x == 0) before[0] = before_head, before[1] = before_tail;
  ptx::NamedBarrier(kConsumerBarrier, V::kConsumers);
  for (int i = 0; i < 2; ++i) {
    const SharedTile tile(p.map, i == 0 ? head.tile : tail.tile);
    if (before[i] != tile.pieces() - 1) continue;
    if (threadIdx.x == 0) p.args.counters[tile.tile] = 0;
    AddPieces<V>(p, tile, warp);
  }
}

template <typename V>
__device__ void RunBlock(const KernelParameters& p, uint32_t shared) {
  const Ring<V> ring = {shared, p.stages, p.release_lanes};
  ptx::AllowSuccessor();
  if (threadIdx.x == 0) ring.Init();
  __syncthreads();
  const int begin = p.map.Begin(blockIdx.x), end = p.map.Begin(blockIdx.x + 1);
  if (!V::kFeedsItself && __shfl_sync(~0u, threadIdx.x / 32, 0) >= V::kWarps) {
    if constexpr (V::kMovesRegisters) ptx::LowerRegisters<V::kProducerRegisters>();
    if (threadIdx.x == V::kConsumers) Produce<V>(p, ring, begin, end);
  } else {
    if constexpr (V::kMovesRegisters) ptx::RaiseRegisters<V::kConsumerRegisters>();
    ptx::WaitForPredecessor();
    Consume<V>(p, ring, begin, end);
  }
}

template <typename V>
__global__ void __launch_bounds__(V::kThreads, 1)
    DecodeGemmKernel(const __grid_constant__ KernelParameters p) {
  extern __shared__ __align__(128) uint8_t shared[];
  if constexpr (kHasCode<V>) RunBlock<V>(p, ptx::SharedAddress(shared));
}

template <typename V>
KernelError LaunchVariant(const DecodeGemmConfig& config, const DecodeGemmArgs& args,
                          const LaunchContext& context) {
  const KernelParameters p = {args, config.map, config.stages, config.prefetch_steps,
                              config.release_lanes};
  return Launch(DecodeGemmKernel<V>,
                {dim3(config.map.blocks), dim3(V::kThreads), config.shared_bytes}, context, p);
}

// Two m-tiles a warp share the tokens they read; at 64 rows wgmma has less to gain from that than
// 16 warps have from hiding each other's dequantisation (36.2 against 36.7 ms a step on an H200).
constexpr int ConsumerWarps(GemmFamily family, int rows) {
  return family == GemmFamily::kWgmma && rows == 64 ? 16 : 8;
}

// The instance of as many rows as the config asks for, of those that the family has.
template <GemmFamily kFamily, int... kRows>
KernelError LaunchRows(const DecodeGemmConfig& config, WeightKind weight,
                       const DecodeGemmArgs& args, const LaunchContext& context) {
  return LaunchForKind(weight, [&](auto kind) {
    KernelError error = {kInvalidArgument, "LaunchDecodeGemm: the family lacks these padded_rows"};
    const auto launch = [&]<int kPadded>() {
      constexpr int kWarps = ConsumerWarps(kFamily, kPadded);
      using V = Variant<decltype(kind)::value, kPadded, kFamily, kWarps>;
      if (config.padded_rows == kPadded) error = LaunchVariant<V>(config, args, context);
    };
    (launch.template operator()<kRows>(), ...);
    return error;
  });
}

}  // namespace
}  // namespace behemoth::kernels
