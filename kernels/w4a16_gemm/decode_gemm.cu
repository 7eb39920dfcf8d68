// One block per SM: 16 consumer warps (16 rows of a 256-row tile each) and one producer warp that
// keeps a ring of weight units full by bulk copies. Weights are constant, so the producer fills the
// ring before it waits for the predecessor grid; activations follow after the wait.
#include <cuda_bf16.h>

#include <algorithm>

#include "kernels/common/launch.cuh"
#include "kernels/common/ptx.cuh"
#include "kernels/w4a16_gemm/decode_gemm.h"
#include "kernels/w4a16_gemm/fragments.cuh"
#include "kernels/w4a16_gemm/wgmma.cuh"

namespace behemoth::kernels {
namespace {

constexpr int kConsumers = 512;
constexpr int kThreads = kConsumers + 32;
constexpr int kConsumerBarrier = 1;

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
  const auto load_slice = [&](int step, int stage) {
    ptx::BulkCopy(ring.Slice(stage), act + int64_t{step % p.map.steps_per_tile} * R::kSliceBytes,
                  R::kSliceBytes, ring.Full(stage));
  };
  const int first = min(end, begin + p.stages);
  for (int step = begin; step < first; ++step) load_unit(step, step - begin);
  ptx::WaitForPredecessor();
  for (int step = begin; step < first; ++step) load_slice(step, step - begin);
  int stage = 0;
  uint32_t parity = 0;
  for (int step = first; step < end; ++step) {
    ptx::BarrierWait(ring.Empty(stage), parity);
    load_unit(step, stage);
    load_slice(step, stage);
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

__device__ inline float Silu(float x) { return x / (1.0f + __expf(-x)); }

__device__ inline void StoreElement(const DecodeGemmArgs& args, int columns, int padded_rows,
                                    int row, int column, float value) {
  if (args.output == GemmOutput::kRowMajorFloat) {
    static_cast<float*>(args.out)[int64_t{row} * columns + column] = value;
    return;
  }
  const int64_t index = args.output == GemmOutput::kActivation
                            ? ActivationIndex(row, column, padded_rows)
                            : int64_t{row} * columns + column;
  static_cast<__nv_bfloat16*>(args.out)[index] = __float2bfloat16_rn(value);
}

// One accumulator quad: tokens (token, token + 1) of packed rows row (v.x, v.y) and row + 8 (v.z,
// v.w).
__device__ inline void Finish(const DecodeGemmArgs& args, int padded_rows, int row, int token,
                              float4 v) {
  const float low[2] = {v.x, v.y}, high[2] = {v.z, v.w};
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (token + i >= args.m) continue;
    if (args.epilogue == GemmEpilogue::kSiluMul) {
      const int column = row / 16 * 8 + row % 8;
      if (column < args.n / 2) {
        StoreElement(args, args.n / 2, padded_rows, token + i, column, Silu(low[i]) * high[i]);
      }
      continue;
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int column = row + 8 * half;
      if (column >= args.n) continue;
      float sum = half == 0 ? low[i] : high[i];
      if (args.epilogue == GemmEpilogue::kAddResidual) {
        const auto* residual = reinterpret_cast<const __nv_bfloat16*>(args.residual);
        sum += __bfloat162float(residual[int64_t{token + i} * args.n + column]);
      }
      StoreElement(args, args.n, padded_rows, token + i, column, sum);
    }
  }
}

// Ends a tile: a whole one goes straight to the epilogue; a piece goes to its slot, and the block
// whose piece arrives last adds all pieces in block order.
template <int kRows>
__device__ void EndTile(const KernelParameters& p, int tile, float (&acc)[kRows / 8][4]) {
  __shared__ uint32_t arrived;
  constexpr int kQuads = kRows / 8;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int row = tile * kUnitRows + warp * 16 + lane / 4, token = lane % 4 * 2;
  const int first = p.map.FirstBlock(tile), last = p.map.LastBlock(tile);
  if (first == last) {
#pragma unroll
    for (int q = 0; q < kQuads; ++q) {
      Finish(p.args, kRows, row, 8 * q + token,
             make_float4(acc[q][0], acc[q][1], acc[q][2], acc[q][3]));
    }
    return;
  }
  const auto piece = [&](int block) {
    return reinterpret_cast<float4*>(p.args.partials) +
           int64_t{2 * block + p.map.Slot(block, tile)} * kQuads * kConsumers + threadIdx.x;
  };
  float4* mine = piece(blockIdx.x);
#pragma unroll
  for (int q = 0; q < kQuads; ++q) {
    __stcg(mine + q * kConsumers, make_float4(acc[q][0], acc[q][1], acc[q][2], acc[q][3]));
  }
  ptx::NamedBarrier(kConsumerBarrier, kConsumers);
  if (threadIdx.x == 0) arrived = ptx::AddAcquireRelease(p.args.counters + tile);
  ptx::NamedBarrier(kConsumerBarrier, kConsumers);
  if (arrived != static_cast<uint32_t>(last - first)) return;
  float4 sum[kQuads];
  const float4* start = piece(first);
#pragma unroll
  for (int q = 0; q < kQuads; ++q) sum[q] = __ldcg(start + q * kConsumers);
#pragma unroll 4
  for (int block = first + 1; block <= last; ++block) {
    const float4* other = piece(block);
#pragma unroll
    for (int q = 0; q < kQuads; ++q) {
      const float4 v = __ldcg(other + q * kConsumers);
      sum[q].x += v.x, sum[q].y += v.y, sum[q].z += v.z, sum[q].w += v.w;
    }
  }
#pragma unroll
  for (int q = 0; q < kQuads; ++q) Finish(p.args, kRows, row, 8 * q + token, sum[q]);
  if (threadIdx.x == 0) p.args.counters[tile] = 0;
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
template <WeightKind kKind, int kRows>
__device__ inline void AccumulateWgmma(float (&acc)[kRows / 8][4], const Ring<kKind, kRows>& ring,
                                       int steps, Cursor& cursor, int warp, int lane) {
  constexpr int kFragments = HalfUnit<kKind>::kFragments;
  int held = -1;  // a stage that a running wgmma may still read
  for (int i = 0; i < steps; ++i) {
    const int stage = cursor.stage;
    ptx::BarrierWait(ring.Full(stage), cursor.parity);
    const RowScales rows = UnitScales<kKind>(ring.Unit(stage), warp, lane);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      HalfUnit<kKind> weights;
      weights.Load(ring.Unit(stage), half, warp, lane, rows);
      weights.Pin();
      ptx::WgmmaFence();
#pragma unroll
      for (int j = 0; j < kFragments; ++j) {
        const uint32_t chunk = ring.Slice(stage) + (half * kFragments + j) * 2 * kRows * 16;
        ptx::Wgmma(acc, weights.a[j], ptx::TokenDescriptor<kRows>(chunk));
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

template <WeightKind kKind, int kRows>
__device__ inline void AccumulateMma(float (&acc)[kRows / 8][4], const Ring<kKind, kRows>& ring,
                                     int steps, Cursor& cursor, int warp, int lane) {
  for (int i = 0; i < steps; ++i) {
    ptx::BarrierWait(ring.Full(cursor.stage), cursor.parity);
    MultiplyMma<kKind, kRows>(acc, ring.Unit(cursor.stage), ring.Slice(cursor.stage), warp, lane);
    __syncwarp();
    if (lane == 0) ptx::BarrierArrive(ring.Empty(cursor.stage));
    cursor.Advance(ring.stages);
  }
}

template <WeightKind kKind, int kRows, bool kUseWgmma>
__device__ void Consume(const KernelParameters& p, const Ring<kKind, kRows>& ring, int begin,
                        int end) {
  // The shuffle tells the compiler that the warp index is uniform, which wgmma's pipelining needs.
  const int lane = threadIdx.x % 32, warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
  Cursor cursor;
  for (int step = begin; step < end;) {
    const int tile = step / p.map.steps_per_tile;
    const int steps = min(end, (tile + 1) * p.map.steps_per_tile) - step;
    float acc[kRows / 8][4] = {};
    if constexpr (kUseWgmma) {
      AccumulateWgmma<kKind, kRows>(acc, ring, steps, cursor, warp, lane);
    } else {
      AccumulateMma<kKind, kRows>(acc, ring, steps, cursor, warp, lane);
    }
    EndTile<kRows>(p, tile, acc);
    step += steps;
  }
}

template <WeightKind kKind, int kRows, bool kUseWgmma>
__global__ void __launch_bounds__(kThreads, 1)
    DecodeGemmKernel(const __grid_constant__ KernelParameters p) {
  extern __shared__ __align__(128) uint8_t shared[];
  const Ring<kKind, kRows> ring = {ptx::SharedAddress(shared), p.stages};
  ptx::AllowSuccessor();
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < p.stages; ++stage) {
      ptx::BarrierInit(ring.Full(stage), 1);
      ptx::BarrierInit(ring.Empty(stage), kConsumers / 32);
    }
    ptx::FenceBarrierInit();
  }
  __syncthreads();
  const int begin = p.map.Begin(blockIdx.x), end = p.map.Begin(blockIdx.x + 1);
  if (__shfl_sync(~0u, threadIdx.x / 32, 0) == kConsumers / 32) {
    if (threadIdx.x == kConsumers) Produce<kKind, kRows>(p, ring, begin, end);
  } else {
    ptx::WaitForPredecessor();
    Consume<kKind, kRows, kUseWgmma>(p, ring, begin, end);
  }
}

template <WeightKind kKind>
KernelError LaunchKind(const DecodeGemmConfig& config, const KernelParameters& p,
                       const LaunchContext& context) {
  const LaunchShape shape = {dim3(config.map.blocks), dim3(kThreads), config.shared_bytes};
  const bool wgmma = config.family == GemmFamily::kWgmma;
  switch (config.padded_rows) {
    case 8:
      return Launch(DecodeGemmKernel<kKind, 8, false>, shape, context, p);
    case 16:
      return wgmma ? Launch(DecodeGemmKernel<kKind, 16, true>, shape, context, p)
                   : Launch(DecodeGemmKernel<kKind, 16, false>, shape, context, p);
    case 32:
      return wgmma ? Launch(DecodeGemmKernel<kKind, 32, true>, shape, context, p)
                   : Launch(DecodeGemmKernel<kKind, 32, false>, shape, context, p);
    case 64:
      return wgmma ? Launch(DecodeGemmKernel<kKind, 64, true>, shape, context, p)
                   : Launch(DecodeGemmKernel<kKind, 64, false>, shape, context, p);
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
