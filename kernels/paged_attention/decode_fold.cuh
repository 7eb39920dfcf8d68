// The workspace of decode attention and the fold of a row's chunks, in chunk order: the step that
// makes a row's bits independent of who computed its chunks and when.
#pragma once

#include "kernels/common/ptx.cuh"
#include "kernels/paged_attention/decode_items.cuh"
#include "kernels/paged_attention/device_math.cuh"
#include "kernels/paged_attention/output.cuh"

namespace behemoth::kernels {

inline constexpr int kMaxChunks = 64;  // of a row: two a lane

// The workspace: for each (row, unit) its counters, then its chunks' partials. Nothing in it
// depends on the number of rows, so launches of any sizes may share one.
struct DecodeSlot {
  uint32_t* arrived;  // chunks whose partial is written
  uint32_t* folded;   // heads that have been folded; the last sets both back to 0
  float* partials;    // [chunks][O [slot_heads][head_dim], m [slot_heads], l [slot_heads]]
  int stride;         // floats of a partial: whole 16-byte pieces

  __device__ DecodeSlot(const DecodeParams& p, int row, int unit) {
    stride = (p.slot_heads * (p.args.shape.kv.head_dim + 2) + 3) / 4 * 4;
    const size_t bytes = kDecodeCounterBytes + sizeof(float) * stride * p.config.chunks_per_row;
    char* at =
        static_cast<char*>(p.args.workspace) + (static_cast<size_t>(row) * p.units + unit) * bytes;
    arrived = reinterpret_cast<uint32_t*>(at);
    folded = arrived + 1;
    partials = reinterpret_cast<float*>(at + kDecodeCounterBytes);
  }
};

template <int kColumns>
__device__ void LoadColumns(const float* from, float (&to)[kColumns]) {
  static_assert(kColumns == 4 || kColumns == 2);
  if constexpr (kColumns == 4) {
    const float4 v = __ldcg(reinterpret_cast<const float4*>(from));
    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
  } else {
    const float2 v = __ldcg(reinterpret_cast<const float2*>(from));
    to[0] = v.x, to[1] = v.y;
  }
}

// A query head of a row with several chunks.
struct FoldTask {
  int row, q_head, chunks;
};

// All lanes of a warp, which own head_dim / 32 neighbouring columns each. Every chunk's loads are
// independent: 16 of them are in flight at once.
template <int kHeadDim>
__device__ void Fold(const DecodeParams& p, const FoldTask& task) {
  constexpr int kColumns = kHeadDim / 32;
  constexpr int kInFlight = 16;
  const int lane = threadIdx.x & 31;
  const int group = p.args.shape.group();
  const int kv_head = task.q_head / group, in_group = task.q_head % group;
  const int head_tile = in_group / kHeadsPerTile, head = in_group % kHeadsPerTile;
  const DecodeSlot slot(p, task.row, kv_head * p.head_tiles + head_tile);
  const float* statistics = slot.partials + p.slot_heads * kHeadDim + head;
  float m[2], l[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int chunk = lane + 32 * i;
    const bool exists = chunk < task.chunks;
    m[i] = exists ? __ldcg(statistics + chunk * slot.stride) : -INFINITY;
    l[i] = exists ? __ldcg(statistics + chunk * slot.stride + p.slot_heads) : 0.0f;
  }
  const float* columns = slot.partials + head * kHeadDim + lane * kColumns;
  float o[kColumns] = {};
  float weight[2] = {}, factor = 0.0f;
  for (int first = 0; first < task.chunks; first += kInFlight) {
    float value[kInFlight][kColumns];
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      if (first + i < task.chunks) {
        LoadColumns<kColumns>(columns + (first + i) * slot.stride, value[i]);
      }
    }
    if (first == 0) {  // behind the first loads, so that the latencies overlap
      float top = fmaxf(m[0], m[1]);
      for (int i = 16; i > 0; i /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, i));
      weight[0] = Exp2(m[0] - top);
      weight[1] = Exp2(m[1] - top);
      float sum = fmaf(weight[0], l[0], weight[1] * l[1]);
      for (int i = 16; i > 0; i /= 2) sum += __shfl_xor_sync(~0u, sum, i);
      factor = (p.args.v_scale == nullptr ? 1.0f : p.args.v_scale[kv_head]) / sum;
    }
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      if (first + i >= task.chunks) break;
      const float w = __shfl_sync(~0u, first < 32 ? weight[0] : weight[1], (first + i) % 32);
#pragma unroll
      for (int e = 0; e < kColumns; ++e) o[e] = fmaf(w, value[i][e], o[e]);
    }
  }
#pragma unroll
  for (int e = 0; e < kColumns; e += 2) {
    StorePair(p.args, task.row, task.q_head * kHeadDim + lane * kColumns + e,
              PackBf16(o[e] * factor, o[e + 1] * factor));
  }
}

// The block's first `kWarps` warps. Heads are dealt to the blocks in turn; a warp waits for 32 at
// once, a lane each, folds them, and counts them at once: a fence a head would cost 1 us.
// `folded` needs no ordering: whoever counts has left the wait, and what is set back then is next
// used by another launch.
template <int kHeadDim, int kWarps>
__device__ void FoldRows(const DecodeParams& p) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
  const int q_heads = p.args.shape.q_heads, group = p.args.shape.group();
  const int tasks = p.args.rows * q_heads, step = gridDim.x * kWarps;
  for (int first = blockIdx.x + gridDim.x * warp; first < tasks; first += 32 * step) {
    const int mine = first + lane * step;
    FoldTask task = {mine / q_heads, mine % q_heads, 0};
    if (mine < tasks) {
      const int kv_len = RowLength(p.args, task.row);
      const int chunk_tokens = DecodeChunkTokens(kv_len, p.config.chunks_per_row);
      task.chunks = (kv_len + chunk_tokens - 1) / chunk_tokens;
    }
    const bool folds = task.chunks > 1;
    const int head_tile = task.q_head % group / kHeadsPerTile;
    const DecodeSlot slot(p, task.row, task.q_head / group * p.head_tiles + head_tile);
    if (folds) {
      while (ptx::LoadAcquire(slot.arrived) != static_cast<uint32_t>(task.chunks)) continue;
    }
    for (uint32_t left = __ballot_sync(~0u, folds); left != 0; left &= left - 1) {
      const int owner = __ffs(static_cast<int>(left)) - 1;
      Fold<kHeadDim>(p, {__shfl_sync(~0u, task.row, owner), __shfl_sync(~0u, task.q_head, owner),
                         __shfl_sync(~0u, task.chunks, owner)});
    }
    const int heads = min(kHeadsPerTile, group - head_tile * kHeadsPerTile);
    if (folds && atomicAdd(slot.folded, 1u) + 1 == static_cast<uint32_t>(heads)) {
      *slot.arrived = 0;
      *slot.folded = 0;
    }
  }
}

}  // namespace behemoth::kernels
