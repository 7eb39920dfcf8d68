// One block per SM: 8 or 16 consumer warps (two or one 16-row m-tiles of a 256-row tile each) and
// one producer warp that keeps a ring of weight units full by bulk copies. Weights are constant, so
// the producer fills the ring before it waits for the predecessor grid; activations follow after
// the wait.
#include <cuda_bf16.h>

#include <algorithm>

#include "kernels/common/launch.cuh"
#include "kernels/common/ptx.cuh"
#include "kernels/w4a16_gemm/decode_gemm.h"
#include "kernels/w4a16_gemm/fragments.cuh"
#include "kernels/w4a16_gemm/wgmma.cuh"

namespace behemoth::kernels {
namespace {

constexpr int kConsumerBarrier = 1;
constexpr int kMTiles = kUnitRows / 16;

// How one instance is built: weights, padded activation rows, instruction family, consumer warps.
template <WeightKind kWeightKind, int kPaddedRows, bool kUseWgmma, int kConsumerWarps>
struct Variant {
  static constexpr WeightKind kKind = kWeightKind;
  static constexpr int kRows = kPaddedRows;
  static constexpr bool kWgmma = kUseWgmma;
  static constexpr int kWarps = kConsumerWarps;
  static constexpr int kTiles = kMTiles / kWarps;  // m-tiles of a warp
  static constexpr int kQuads = kRows / 8;         // accumulator quads of an m-tile
  static constexpr int kConsumers = 32 * kWarps;
  static constexpr int kThreads = kConsumers + 32;
  using Accumulators = float[kTiles][kQuads][4];
};

struct KernelParameters {
  DecodeGemmArgs args;
  StripeMap map;
  int stages;
  int prefetch_steps;
};

// Shared memory: stages of [unit][activation slice], then full and empty barriers.
template <WeightKind kKind, int kRows>
struct Ring {
  static constexpr int kUnitBytes = UnitBytes(kKind);
  static constexpr int kSliceBytes = UnitColumns(kKind) * kRows * 2;
  static constexpr int kStageBytes = kUnitBytes + kSliceBytes;
  uint32_t base;
  int stages;

  __device__ uint32_t Unit(int stage) const { return base + stage * kStageBytes; }
  __device__ uint32_t Slice(int stage) const { return Unit(stage) + kUnitBytes; }
  __device__ uint32_t Full(int stage) const { return base + stages * kStageBytes + stage * 16; }
  __device__ uint32_t Empty(int stage) const { return Full(stage) + 8; }
};

template <WeightKind kKind, int kRows>
__device__ void Produce(const KernelParameters& p, const Ring<kKind, kRows>& ring, int begin,
                        int end) {
  using R = Ring<kKind, kRows>;
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
    ptx::BulkCopy(ring.Slice(stage), act + int64_t{column} * R::kSliceBytes, R::kSliceBytes,
                  ring.Full(stage));
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

template <typename V>
__device__ inline void Clear(typename V::Accumulators& acc) {
#pragma unroll
  for (int q = 0; q < V::kTiles * V::kQuads; ++q) {
    float* a = acc[q / V::kQuads][q % V::kQuads];
    a[0] = a[1] = a[2] = a[3] = 0.0f;
  }
}

__device__ inline float Silu(float x) { return x / (1.0f + __expf(-x)); }

// Where a column of the output lies: element index = base + token * stride, whatever the layout.
struct OutputColumn {
  int64_t base;
  int64_t stride;
};
__device__ inline OutputColumn ColumnOf(GemmOutput output, int column, int columns,
                                        int padded_rows) {
  if (output == GemmOutput::kActivation) return {ActivationIndex(0, column, padded_rows), 8};
  return {column, columns};
}

// Epilogue and store of one column's tokens: values[2 q + t] belongs to token 8 q + first_token +
// t.
template <int kValues>
__device__ inline void StoreColumn(const DecodeGemmArgs& args, int column, int columns,
                                   int padded_rows, int first_token, float (&values)[kValues]) {
  if (column >= columns) return;
  const auto token = [&](int v) { return v / 2 * 8 + v % 2 + first_token; };
  if (args.epilogue == GemmEpilogue::kAddResidual) {
    // All loads before the first store: the residual may be the output.
    const auto* residual = reinterpret_cast<const __nv_bfloat16*>(args.residual) + column;
    __nv_bfloat16 addend[kValues];
#pragma unroll
    for (int v = 0; v < kValues; ++v) {
      if (token(v) < args.m) addend[v] = residual[int64_t{token(v)} * columns];
    }
#pragma unroll
    for (int v = 0; v < kValues; ++v) values[v] += __bfloat162float(addend[v]);
  }
  const OutputColumn to = ColumnOf(args.output, column, columns, padded_rows);
  if (args.output == GemmOutput::kRowMajorFloat) {
    float* out = static_cast<float*>(args.out) + to.base;
#pragma unroll
    for (int v = 0; v < kValues; ++v) {
      if (token(v) < args.m) out[token(v) * to.stride] = values[v];
    }
  } else {
    auto* out = static_cast<__nv_bfloat16*>(args.out) + to.base;
#pragma unroll
    for (int v = 0; v < kValues; ++v) {
      if (token(v) < args.m) out[token(v) * to.stride] = __float2bfloat16_rn(values[v]);
    }
  }
}

// Stores a tile's sums. An accumulator quad holds tokens (t, t + 1) of packed row r and of r + 8.
template <typename V>
__device__ void StoreTile(const DecodeGemmArgs& args, int tile, int warp,
                          const typename V::Accumulators& acc) {
  const int lane = threadIdx.x % 32, token = lane % 4 * 2;
#pragma unroll
  for (int i = 0; i < V::kTiles; ++i) {
    const int row = tile * kUnitRows + WarpTile<V::kTiles>(warp, i) * 16 + lane / 4;
    float low[2 * V::kQuads], high[2 * V::kQuads];
#pragma unroll
    for (int v = 0; v < 2 * V::kQuads; ++v) {
      low[v] = acc[i][v / 2][v % 2], high[v] = acc[i][v / 2][2 + v % 2];
    }
    if (args.epilogue == GemmEpilogue::kSiluMul) {
#pragma unroll
      for (int v = 0; v < 2 * V::kQuads; ++v) low[v] = Silu(low[v]) * high[v];
      StoreColumn(args, row / 16 * 8 + row % 8, args.n / 2, V::kRows, token, low);
    } else {
      StoreColumn(args, row, args.n, V::kRows, token, low);
      StoreColumn(args, row + 8, args.n, V::kRows, token, high);
    }
  }
}

// Ends a tile: a whole one goes straight to the epilogue; a piece goes to its slot, and the block
// whose piece arrives last adds all pieces in block order.
template <typename V>
__device__ void EndTile(const KernelParameters& p, int tile, int warp,
                        typename V::Accumulators& acc) {
  __shared__ uint32_t arrived;
  constexpr int kQuads = V::kQuads, kPieceQuads = V::kTiles * V::kQuads;
  const int first = p.map.FirstBlock(tile), last = p.map.LastBlock(tile);
  if (first != last) {
    // Slot 1: the tile begins in the block's stripe, which only its first block's does.
    const auto piece = [&](int block) {
      return reinterpret_cast<float4*>(p.args.partials) +
             int64_t{2 * block + (block == first)} * kQuads * kMTiles * 32 + threadIdx.x;
    };
    float4* mine = piece(blockIdx.x);
#pragma unroll
    for (int q = 0; q < kPieceQuads; ++q) {
      const float* a = acc[q / kQuads][q % kQuads];
      __stcg(mine + q * V::kConsumers, make_float4(a[0], a[1], a[2], a[3]));
    }
    ptx::NamedBarrier(kConsumerBarrier, V::kConsumers);
    if (threadIdx.x == 0) arrived = ptx::AddAcquireRelease(p.args.counters + tile);
    ptx::NamedBarrier(kConsumerBarrier, V::kConsumers);
    if (arrived != static_cast<uint32_t>(last - first)) return;
    if (threadIdx.x == 0) p.args.counters[tile] = 0;
    Clear<V>(acc);
#pragma unroll(kPieceQuads < 4 ? 4 / kPieceQuads : 1)
    for (int block = first; block <= last; ++block) {
      const float4* other = piece(block);
#pragma unroll
      for (int q = 0; q < kPieceQuads; ++q) {
        const float4 v = __ldcg(other + q * V::kConsumers);
        float* a = acc[q / kQuads][q % kQuads];
        a[0] += v.x, a[1] += v.y, a[2] += v.z, a[3] += v.w;
      }
    }
  }
  StoreTile<V>(p.args, tile, warp, acc);
}

// Position in the ring: stage and the parity of its current phase.
struct Cursor {
  int stage = 0;
  uint32_t parity = 0;
  __device__ void Advance(int stages) {
    if (++stage == stages) stage = 0, parity ^= 1;
  }
};

// acc += steps [step, end) of one tile. At most one group of wgmmas runs while the next half unit
// is dequantised; none runs when this returns. The loop holds nothing but the multiplication: a
// conditional that touches the accumulators inside it makes ptxas serialise every wgmma (C7511).
template <typename V>
__device__ inline void AccumulateWgmma(typename V::Accumulators& acc,
                                       const Ring<V::kKind, V::kRows>& ring, int steps,
                                       Cursor& cursor, int warp, int lane) {
  using Half = HalfUnit<V::kKind>;
  int held = -1;  // a stage that a running wgmma may still read
  for (int step = 0; step < steps; ++step) {
    const int stage = cursor.stage;
    ptx::BarrierWait(ring.Full(stage), cursor.parity);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      Half weights[V::kTiles];
#pragma unroll
      for (int i = 0; i < V::kTiles; ++i) {
        const int m_tile = WarpTile<V::kTiles>(warp, i);
        weights[i].Load(ring.Unit(stage), half, m_tile, lane,
                        UnitScales<V::kKind>(ring.Unit(stage), m_tile, lane));
        weights[i].Pin();
      }
      ptx::WgmmaFence();
#pragma unroll
      for (int j = 0; j < Half::kFragments; ++j) {
        const uint32_t chunk =
            ring.Slice(stage) + (half * Half::kFragments + j) * 2 * V::kRows * 16;
#pragma unroll
        for (int i = 0; i < V::kTiles; ++i) {
          ptx::Wgmma(acc[i], weights[i].a[j], ptx::TokenDescriptor<V::kRows>(chunk));
        }
      }
      ptx::WgmmaCommit();
      ptx::WgmmaWait<1>();  // the group before this one has ended: its A registers are free
      if (half == 0) ptx::BarrierArriveIf(lane == 0 && held >= 0, ring.Empty(max(held, 0)));
    }
    held = stage;
    cursor.Advance(ring.stages);
  }
  ptx::WgmmaWait<0>();
  if (lane == 0) ptx::BarrierArrive(ring.Empty(held));
}

template <typename V>
__device__ inline void AccumulateMma(typename V::Accumulators& acc,
                                     const Ring<V::kKind, V::kRows>& ring, int steps,
                                     Cursor& cursor, int warp, int lane) {
  for (int step = 0; step < steps; ++step) {
    ptx::BarrierWait(ring.Full(cursor.stage), cursor.parity);
    MultiplyMma<V::kKind, V::kRows, V::kTiles>(acc, ring.Unit(cursor.stage),
                                               ring.Slice(cursor.stage), warp, lane);
    __syncwarp();
    if (lane == 0) ptx::BarrierArrive(ring.Empty(cursor.stage));
    cursor.Advance(ring.stages);
  }
}

template <typename V>
__device__ void Consume(const KernelParameters& p, const Ring<V::kKind, V::kRows>& ring, int begin,
                        int end) {
  // The shuffle tells the compiler that the warp index is uniform, which wgmma's pipelining needs.
  const int lane = threadIdx.x % 32, warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
  Cursor cursor;
  int tile = begin / p.map.steps_per_tile;
  for (int step = begin; step < end; ++tile) {
    const int steps = min(end, (tile + 1) * p.map.steps_per_tile) - step;
    typename V::Accumulators acc;
    Clear<V>(acc);
    if constexpr (V::kWgmma) {
      AccumulateWgmma<V>(acc, ring, steps, cursor, warp, lane);
    } else {
      AccumulateMma<V>(acc, ring, steps, cursor, warp, lane);
    }
    EndTile<V>(p, tile, warp, acc);
    step += steps;
  }
}

template <typename V>
__global__ void __launch_bounds__(V::kThreads, 1)
    DecodeGemmKernel(const __grid_constant__ KernelParameters p) {
  extern __shared__ __align__(128) uint8_t shared[];
  const Ring<V::kKind, V::kRows> ring = {ptx::SharedAddress(shared), p.stages};
  ptx::AllowSuccessor();
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < p.stages; ++stage) {
      ptx::BarrierInit(ring.Full(stage), 1);
      ptx::BarrierInit(ring.Empty(stage), V::kWarps);
    }
    ptx::FenceBarrierInit();
  }
  __syncthreads();
  const int begin = p.map.Begin(blockIdx.x), end = p.map.Begin(blockIdx.x + 1);
  if (__shfl_sync(~0u, threadIdx.x / 32, 0) == V::kWarps) {
    if (threadIdx.x == V::kConsumers) Produce<V::kKind, V::kRows>(p, ring, begin, end);
  } else {
    ptx::WaitForPredecessor();
    Consume<V>(p, ring, begin, end);
  }
}

template <WeightKind kKind, int kRows, bool kWgmma>
KernelError LaunchRows(const DecodeGemmConfig& config, const KernelParameters& p,
                       const LaunchContext& context) {
  const auto launch = [&]<int kWarps>() {
    using V = Variant<kKind, kRows, kWgmma, kWarps>;
    return Launch(DecodeGemmKernel<V>,
                  {dim3(config.map.blocks), dim3(V::kThreads), config.shared_bytes}, context, p);
  };
  switch (config.warps) {
    case 8:
      return launch.template operator()<8>();
    case 16:
      return launch.template operator()<16>();
    default:
      return {kInvalidArgument, "LaunchDecodeGemm: warps is not 8 or 16"};
  }
}

template <WeightKind kKind>
KernelError LaunchKind(const DecodeGemmConfig& config, const KernelParameters& p,
                       const LaunchContext& context) {
  const bool wgmma = config.family == GemmFamily::kWgmma;
  switch (config.padded_rows) {
    case 8:
      return LaunchRows<kKind, 8, false>(config, p, context);
    case 16:
      return wgmma ? LaunchRows<kKind, 16, true>(config, p, context)
                   : LaunchRows<kKind, 16, false>(config, p, context);
    case 32:
      return wgmma ? LaunchRows<kKind, 32, true>(config, p, context)
                   : LaunchRows<kKind, 32, false>(config, p, context);
    case 64:
      return wgmma ? LaunchRows<kKind, 64, true>(config, p, context)
                   : LaunchRows<kKind, 64, false>(config, p, context);
    default:
      return {kInvalidArgument, "LaunchDecodeGemm: padded_rows is not 8, 16, 32 or 64"};
  }
}

}  // namespace

KernelError LaunchDecodeGemm(const DecodeGemmConfig& config, WeightKind weight,
                             const DecodeGemmArgs& args, const LaunchContext& context) {
  if (args.m < 1 || args.m > config.padded_rows) {
    return {kInvalidArgument, "LaunchDecodeGemm: m is not in 1..padded_rows"};
  }
  if (args.epilogue == GemmEpilogue::kAddResidual && args.residual == nullptr) {
    return {kInvalidArgument, "LaunchDecodeGemm: no residual to add"};
  }
  const KernelParameters p = {args, config.map, config.stages, config.prefetch_steps};
  switch (weight) {
    case WeightKind::kInt4:
      return LaunchKind<WeightKind::kInt4>(config, p, context);
    case WeightKind::kInt4ZeroPoint:
      return LaunchKind<WeightKind::kInt4ZeroPoint>(config, p, context);
    case WeightKind::kBf16:
      return LaunchKind<WeightKind::kBf16>(config, p, context);
  }
  return {kInvalidArgument, "LaunchDecodeGemm: unknown weight kind"};
}

}  // namespace behemoth::kernels
