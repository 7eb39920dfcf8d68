// What the decode and the prefill GEMM share: how an instance is described, its ring in shared
// memory, the multiplication of a tile's steps, the epilogue. Included by .cu files only; contents
// live in the including file's own anonymous namespace, as kernels do.
#pragma once

#include <cuda_bf16.h>

#include <type_traits>

#include "kernels/common/ptx.cuh"
#include "kernels/w4a16_gemm/decode_gemm.h"
#include "kernels/w4a16_gemm/fragments.cuh"
#include "kernels/w4a16_gemm/wgmma.cuh"

namespace behemoth::kernels {
namespace {

constexpr int kMTiles = kUnitRows / 16;

// How one instance is built: weights, padded activation rows, family, consumer warps, and the part
// of a unit's rows that it multiplies (1 / kUnitParts, whole blobs).
template <WeightKind kWeightKind, int kPaddedRows, GemmFamily kGemmFamily, int kConsumerWarps,
          int kUnitParts = 1>
struct Variant {
  static constexpr int kParts = kUnitParts;
  static constexpr WeightKind kKind = kWeightKind;
  static constexpr int kRows = kPaddedRows;
  static constexpr GemmFamily kFamily = kGemmFamily;
  static constexpr bool kWgmma = kFamily == GemmFamily::kWgmma;
  static constexpr int kWarps = kConsumerWarps;
  static constexpr int kTiles = kMTiles / kParts / kWarps;  // m-tiles of a warp
  static constexpr int kQuads = kRows / 8;                  // accumulator quads of an m-tile
  static constexpr int kConsumers = 32 * kWarps;
  // Registers come in equal parts to the warps of a block, and 65,536 are those of whole
  // warpgroups: three start with 168. wgmma with more than 64 rows needs more, so the producer's
  // warpgroup (of which one thread works) gives its own away: 2 x 128 x 240 + 128 x 24 = 64,512.
  static constexpr bool kMovesRegisters = kWgmma && kRows > 64;
  static constexpr int kConsumerRegisters = 240, kProducerRegisters = 24;
  // kAsync has no producer: a ninth warp would leave 168 registers a thread instead of 255, and 128
  // rows need more.
  static constexpr bool kFeedsItself = kFamily == GemmFamily::kAsync;
  static constexpr int kThreads = kConsumers + (kMovesRegisters ? 128 : kFeedsItself ? 0 : 32);
  // Arrivals that fill a stage: each thread's for its own copies, or one for the bulk copies.
  static constexpr int kFullArrivals = kFeedsItself ? kThreads : 1;
  using Accumulators = float[kTiles][kQuads][4];
};

// Kernels that a device never selects have no body in its code: they would take long to compile.
template <typename V>
constexpr bool kHasCode =
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
    ptx::kHasWgmma || V::kFamily != GemmFamily::kWgmma;
#else
    V::kFamily == GemmFamily::kAsync;
#endif

// launch(std::integral_constant<WeightKind, weight>()).
template <typename LaunchOfKind>
KernelError LaunchForKind(WeightKind weight, LaunchOfKind launch) {
  switch (weight) {
    case WeightKind::kInt4:
      return launch(std::integral_constant<WeightKind, WeightKind::kInt4>());
    case WeightKind::kInt4ZeroPoint:
      return launch(std::integral_constant<WeightKind, WeightKind::kInt4ZeroPoint>());
    case WeightKind::kBf16:
      return launch(std::integral_constant<WeightKind, WeightKind::kBf16>());
    case WeightKind::kInt4Group64:
      return launch(std::integral_constant<WeightKind, WeightKind::kInt4Group64>());
    case WeightKind::kInt4ZeroPointGroup64:
      return launch(std::integral_constant<WeightKind, WeightKind::kInt4ZeroPointGroup64>());
    case WeightKind::kInt4Group32:
      return launch(std::integral_constant<WeightKind, WeightKind::kInt4Group32>());
    case WeightKind::kInt4ZeroPointGroup32:
      return launch(std::integral_constant<WeightKind, WeightKind::kInt4ZeroPointGroup32>());
  }
  return {kInvalidArgument, "W4A16 GEMM: unknown weight kind"};
}

// Shared memory: stages of [unit][activation slice], then full and empty barriers.
template <typename V>
struct Ring {
  static constexpr int kUnitBytes = UnitBytes(V::kKind) / V::kParts;
  static constexpr int kSliceBytes = UnitColumns(V::kKind) * V::kRows * 2;
  static constexpr int kStageBytes = kUnitBytes + kSliceBytes;
  uint32_t base;
  int stages;
  int release_lanes;

  __device__ uint32_t Unit(int stage) const { return base + stage * kStageBytes; }
  __device__ uint32_t Slice(int stage) const { return Unit(stage) + kUnitBytes; }
  __device__ uint32_t Full(int stage) const { return base + stages * kStageBytes + stage * 16; }
  __device__ uint32_t Empty(int stage) const { return Full(stage) + 8; }
  __device__ void Init() const {
    for (int stage = 0; stage < stages; ++stage) {
      ptx::BarrierInit(Full(stage), V::kFullArrivals);
      ptx::BarrierInit(Empty(stage), V::kWarps * release_lanes);
    }
    ptx::FenceBarrierInit();
  }
};

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
__device__ inline void AccumulateWgmma(typename V::Accumulators& acc, const Ring<V>& ring,
                                       int steps, Cursor& cursor, int warp, int lane) {
  using Half = HalfUnit<V::kKind>;
  int held = -1;  // a stage that a running wgmma may still read
  for (int step = 0; step < steps; ++step) {
    const int stage = cursor.stage;
    ptx::BarrierWait(ring.Full(stage), cursor.parity);
    HalfScales<V::kKind> scales[V::kTiles];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      Half weights[V::kTiles];
#pragma unroll
      for (int i = 0; i < V::kTiles; ++i) {
        const int m_tile = WarpTile<V::kTiles>(warp, i);
        // Groups of 128 columns: both halves have the same scales.
        if (half == 0 || UnitGroups(V::kKind) > 1) {
          scales[i].Load(ring.Unit(stage), half, m_tile, lane);
        }
        weights[i].Load(ring.Unit(stage), half, m_tile, lane, scales[i]);
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
      if (half == 0) {
        __syncwarp();
        ptx::BarrierArriveIf(lane < ring.release_lanes && held >= 0, ring.Empty(max(held, 0)));
      }
    }
    held = stage;
    cursor.Advance(ring.stages);
  }
  ptx::WgmmaWait<0>();
  __syncwarp();
  ptx::BarrierArriveIf(lane < ring.release_lanes && held >= 0, ring.Empty(max(held, 0)));
}

// What a block that feeds itself copies into a stage: a unit, and a slice [chunks of 8 columns]
// [act_rows][8] from its first row on.
struct StageSource {
  const uint8_t* unit;
  const bf16* act;
  int act_rows;
};

// All threads, 16 bytes a thread and copy; the stage is full when each thread's have landed. Waits
// until everyone has left the stage.
template <typename V>
__device__ inline void CopyStage(const Ring<V>& ring, Cursor& cursor, const StageSource& from) {
  // A fresh barrier is in the phase before its first: parity 1 passes at once.
  ptx::BarrierWait(ring.Empty(cursor.stage), cursor.parity ^ 1);
  constexpr int kUnitBytes = Ring<V>::kUnitBytes, kBytesAtOnce = V::kThreads * 16;
  const int thread = static_cast<int>(threadIdx.x);
  const uint32_t unit = ring.Unit(cursor.stage);
#pragma unroll
  for (int first = 0; first < kUnitBytes; first += kBytesAtOnce) {
    const int at = first + thread * 16;
    if (at < kUnitBytes) ptx::CopyAsync16(unit + at, from.unit + at);
  }
  constexpr int kPieces = UnitColumns(V::kKind) / 8 * V::kRows;
  const uint32_t slice = ring.Slice(cursor.stage);
#pragma unroll
  for (int first = 0; first < kPieces; first += V::kThreads) {
    const int piece = first + thread;  // [chunk][row]
    const int64_t line = int64_t{piece / V::kRows} * from.act_rows + piece % V::kRows;
    if (piece < kPieces) ptx::CopyAsync16(slice + piece * 16, from.act + line * 8);
  }
  ptx::CopyAsyncArrive(ring.Full(cursor.stage));
  cursor.Advance(ring.stages);
}

// Fills the ring but for one stage: each step of AccumulateMma then loads into the stage that was
// read in the step before.
template <typename Feed>
__device__ inline void StartFeed(Feed& feed, int stages) {
  for (int i = 1; i < stages; ++i) feed.Next();
}

template <typename V, typename Feed>
__device__ inline void AccumulateMma(typename V::Accumulators& acc, const Ring<V>& ring, int steps,
                                     Cursor& cursor, Feed& feed, int warp, int lane) {
  for (int step = 0; step < steps; ++step) {
    ptx::BarrierWait(ring.Full(cursor.stage), cursor.parity);
    feed.Next();
    MultiplyMma<V::kKind, V::kRows, V::kTiles>(acc, ring.Unit(cursor.stage),
                                               ring.Slice(cursor.stage), warp, lane);
    __syncwarp();
    if (lane < ring.release_lanes) ptx::BarrierArrive(ring.Empty(cursor.stage));
    cursor.Advance(ring.stages);
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

// Stores a tile's sums; first_row is packed. An accumulator quad holds tokens (t, t + 1) of packed
// row r and of r + 8.
struct TokenTile {
  int first_token;
  int padded_rows;  // of the output's activation layout
};
template <typename V>
__device__ void StoreTile(const DecodeGemmArgs& args, int first_row, int warp,
                          const typename V::Accumulators& acc, const TokenTile& tokens) {
  // Registers for values on their way: those of 64 tokens at a time.
  constexpr int kTogether = V::kQuads % 8 == 0 ? 8 : V::kQuads % 6 == 0 ? 6 : V::kQuads;
  constexpr int kPasses = V::kQuads / kTogether, kValues = 2 * kTogether;
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int pass = 0; pass < V::kTiles * kPasses; ++pass) {
    asm volatile("" ::: "memory");  // no load of a later pass before this one's end
    const int i = pass / kPasses, first_quad = pass % kPasses * kTogether;
    const int token = tokens.first_token + 8 * first_quad + lane % 4 * 2;
    const int row = first_row + WarpTile<V::kTiles>(warp, i) * 16 + lane / 4;
    float low[kValues], high[kValues];
#pragma unroll
    for (int v = 0; v < kValues; ++v) {
      const float* quad = acc[i][first_quad + v / 2];
      low[v] = quad[v % 2], high[v] = quad[2 + v % 2];
    }
    if (args.epilogue == GemmEpilogue::kSiluMul) {
#pragma unroll
      for (int v = 0; v < kValues; ++v) low[v] = Silu(low[v]) * high[v];
      StoreColumn(args, row / 16 * 8 + row % 8, args.n / 2, tokens.padded_rows, token, low);
    } else {
      StoreColumn(args, row, args.n, tokens.padded_rows, token, low);
      StoreColumn(args, row + 8, args.n, tokens.padded_rows, token, high);
    }
  }
}

}  // namespace
}  // namespace behemoth::kernels
