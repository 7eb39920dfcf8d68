// Decode attention. Limit: the bytes of K and V (12 query heads a KV head: 12 FLOP a byte in bf16,
// far under the tensor cores' 250). One tile of 64 tokens is 32 KB for K and V together and costs
// 128 MMAs, 192 clocks of an SM; streaming it takes 2,400 clocks of an SM's share of 3 TB/s.
//
// A block is one producer warp and four consumer warps. An item of work is one chunk of one KV head
// of one row, walked in passes of up to 256 tokens:
//   scores   each warp owns 16 tokens of every tile; S = Q K^T stays in registers for the pass;
//   softmax  one maximum for the pass over all warps, P to shared memory as bf16;
//   values   each warp owns a quarter of the head's columns and adds P V over the pass's tokens.
// So a pass has two barriers among the warps, and no output is ever reduced between them. Several
// chunks a row: each leaves (O, m, l) in the workspace; the last to arrive folds them in chunk
// order.
#include <algorithm>

#include "kernels/common/launch.cuh"
#include "kernels/common/ptx.cuh"
#include "kernels/paged_attention/device_math.cuh"
#include "kernels/paged_attention/paged_attention.h"
#include "kernels/paged_attention/tile_pipe.cuh"

namespace behemoth::kernels {
namespace {

constexpr int kConsumerWarps = 4;
constexpr int kConsumerThreads = 32 * kConsumerWarps;
constexpr int kThreads = kConsumerThreads + 32;
constexpr int kConsumerBarrier = 1;
constexpr int kPassTiles = 4;
constexpr int kPassTokens = kPassTiles * kTokensPerBlock;
constexpr int kProbabilityStride = kPassTokens + 8;  // rows 16 bytes apart in the banks
constexpr float kLog2E = 1.44269504088896f;
constexpr int kMaxChunks = 64;
static_assert(kMinChunkTokens % kPassTokens == 0);
static_assert(2 * kMaxChunks * kHeadsPerTile * 4 <= kHeadsPerTile * kProbabilityStride * 2);

struct DecodeParams {
  PagedAttentionArgs args;
  DecodeAttentionConfig config;
  int head_tiles;  // per KV head
  int units;       // kv_heads * head_tiles
  int slot_heads;  // heads a partial has room for
};

// One chunk of one KV head (and one tile of its query heads) of one row.
struct Item {
  int row, chunk, chunks, kv_head, head_tile;
  int begin, end, kv_len;  // tokens [begin, end) of kv_len
};

// Walks the flattened list of items, ordered by (row, chunk, unit), in ascending steps. The list
// exists only as the prefix sums of 32 rows at a time in a warp's registers.
class WorkCursor {
 public:
  __device__ explicit WorkCursor(const DecodeParams& params) : p_(params) { LoadRows(); }

  // All lanes of the warp. False: no item `index` (or later) exists.
  __device__ bool Find(int index, Item* item) {
    int group_items = __shfl_sync(~0u, inclusive_, 31);
    while (index - base_ >= group_items) {
      base_ += group_items;
      first_row_ += 32;
      if (first_row_ >= p_.args.rows) return false;
      LoadRows();
      group_items = __shfl_sync(~0u, inclusive_, 31);
    }
    const int at = index - base_;
    const int lane = __ffs(__ballot_sync(~0u, inclusive_ > at)) - 1;
    const int inclusive = __shfl_sync(~0u, inclusive_, lane);
    item->kv_len = __shfl_sync(~0u, kv_len_, lane);
    item->chunks = __shfl_sync(~0u, chunks_, lane);
    const int local = at - (inclusive - item->chunks * p_.units);
    item->row = first_row_ + lane;
    item->chunk = local / p_.units;
    const int unit = local % p_.units;
    item->kv_head = unit / p_.head_tiles;
    item->head_tile = unit % p_.head_tiles;
    const int chunk_tokens = DecodeChunkTokens(item->kv_len, p_.config.chunks_per_row);
    item->begin = item->chunk * chunk_tokens;
    item->end = min(item->kv_len, item->begin + chunk_tokens);
    return true;
  }

 private:
  __device__ void LoadRows() {
    const int row = first_row_ + static_cast<int>(threadIdx.x & 31);
    kv_len_ = 0;
    if (row < p_.args.rows) {
      kv_len_ = min(max(p_.args.kv_len[row], 0), p_.args.block_table_stride * kTokensPerBlock);
    }
    const int chunk_tokens = DecodeChunkTokens(kv_len_, p_.config.chunks_per_row);
    chunks_ = (kv_len_ + chunk_tokens - 1) / chunk_tokens;
    inclusive_ = chunks_ * p_.units;
    for (int distance = 1; distance < 32; distance *= 2) {
      const int below = __shfl_up_sync(~0u, inclusive_, distance);
      if (static_cast<int>(threadIdx.x & 31) >= distance) inclusive_ += below;
    }
  }

  const DecodeParams& p_;
  int first_row_ = 0, base_ = 0;     // this group of 32 rows; items before it
  int kv_len_, chunks_, inclusive_;  // of this lane's row
};

// ---- Producer
// ------------------------------------------------------------------------------------

__device__ void Produce(const DecodeParams& p, TilePipe pipe) {
  const PagedAttentionArgs& args = p.args;
  const uint32_t lane = threadIdx.x & 31;
  const char* pool = static_cast<const char*>(args.kv);
  const size_t block_bytes = KvBlockBytes(args.shape.kv);
  const size_t value_offset = static_cast<size_t>(args.shape.kv.kv_heads) * pipe.tile_bytes;
  bool waited = !args.history_is_settled;
  if (waited) ptx::WaitForPredecessor();
  WorkCursor cursor(p);
  Item item;
  for (int index = blockIdx.x; cursor.Find(index, &item); index += gridDim.x) {
    const int32_t* table =
        args.block_table + static_cast<size_t>(item.row) * args.block_table_stride;
    const int newest_tile = (item.kv_len - 1) / kTokensPerBlock;
    const int end_tile = (item.end + kTokensPerBlock - 1) / kTokensPerBlock;
    const size_t head_offset = static_cast<size_t>(item.kv_head) * pipe.tile_bytes;
    int block_of_lane = 0;
    const int begin_tile = item.begin / kTokensPerBlock;
    for (int pass = begin_tile; pass < end_tile; pass += kPassTiles) {
      const int pass_end = min(pass + kPassTiles, end_tile);
      if ((pass - begin_tile) % 32 == 0) {
        const int mine = pass + static_cast<int>(lane);
        block_of_lane = mine < end_tile ? table[mine] : 0;
      }
      for (int part = 0; part < 2; ++part) {
        for (int tile = pass; tile < pass_end; ++tile) {
          if (!waited && tile == newest_tile) {
            ptx::WaitForPredecessor();
            waited = true;
          }
          const int block = __shfl_sync(~0u, block_of_lane, (tile - begin_tile) % 32);
          pipe.Push(pool + block * block_bytes + part * value_offset + head_offset);
        }
      }
    }
  }
}

// ---- Consumers
// -----------------------------------------------------------------------------------

struct Exchange {                   // shared memory among the consumer warps
  uint32_t probabilities;           // [16][kProbabilityStride] bf16
  float (*row_max)[kHeadsPerTile];  // [4][16]
  float (*row_sum)[kHeadsPerTile];  // [4][16]
  int* is_last;
  float* weights;  // the probabilities' bytes, between items: [2][kMaxChunks][16]
};

// One consumer warp's registers. g = lane / 4 and g + 8 are its heads, t = lane % 4 its column
// pair.
template <int kHeadDim, KvType kType>
struct Consumer {
  static constexpr int kRowBytes = kHeadDim * KvElementBytes(kType);
  static constexpr int kSteps = kHeadDim / 16;                // of the sum over head_dim
  static constexpr int kColumns = kHeadDim / kConsumerWarps;  // of O that a warp owns
  static constexpr int kPairs = kColumns / 16;                // of n8 tiles
  static constexpr bool kIsBf16 = kType == KvType::kBf16;

  int warp, lane, g, t;
  uint32_t q[kSteps][4];
  float o[2 * kPairs][4];
  float m[2], l[2];  // of heads g, g + 8; l covers this warp's tokens only

  __device__ Consumer()
      : warp(threadIdx.x / 32), lane(threadIdx.x & 31), g(lane >> 2), t(lane & 3) {}

  // fp8 keys arrive four to a word; the sum's order is free, so Q takes theirs.
  __device__ void LoadQuery(const bf16* heads, int head_count) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int head = g + (i & 1) * 8;
        const int dim = 16 * step + (kIsBf16 ? 2 * t + (i >> 1) * 8 : 4 * t + (i >> 1) * 2);
        q[step][i] = 0;
        if (head < head_count) {
          q[step][i] = *reinterpret_cast<const uint32_t*>(heads + head * kHeadDim + dim);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < 2 * kPairs; ++i) o[i][0] = o[i][1] = o[i][2] = o[i][3] = 0.0f;
    m[0] = m[1] = -INFINITY;
    l[0] = l[1] = 0.0f;
  }

  // s[n] = Q K^T for tokens 16 warp + 8 n .. + 7 of the tile.
  __device__ void Scores(uint32_t tile, float (&s)[2][4]) const {
    const int row = lane & 7, matrix = lane >> 3;
#pragma unroll
    for (int n = 0; n < 2; ++n) s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0.0f;
    if constexpr (kIsBf16) {
      const int token = 16 * warp + (matrix >> 1) * 8 + row;
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        uint32_t k[4];
        ptx::LoadMatrix4(
            k, tile + SwizzledTileOffset(kRowBytes, token, 32 * step + (matrix & 1) * 16));
        ptx::MmaBf16(s[0], q[step], k[0], k[1]);
        ptx::MmaBf16(s[1], q[step], k[2], k[3]);
      }
    } else {
#pragma unroll
      for (int four = 0; four < kSteps; four += 4) {
#pragma unroll
        for (int n = 0; n < 2; ++n) {
          uint32_t k[4];
          ptx::LoadMatrix4(k, tile + SwizzledTileOffset(kRowBytes, 16 * warp + 8 * n + row,
                                                        16 * (four + matrix)));
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            ptx::MmaBf16(s[n], q[four + i], E4m3BytesToBf16<0, 1>(k[i]),
                         E4m3BytesToBf16<2, 3>(k[i]));
          }
        }
      }
    }
  }

  // Scores -> probabilities in shared memory; m, l and o move to the new maximum.
  __device__ void Softmax(float (&s)[kPassTiles][2][4], int tiles, int first_token, int end_token,
                          float scale_log2, const Exchange& x) {
    float top[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int tile = 0; tile < kPassTiles; ++tile) {
      if (tile >= tiles) break;
#pragma unroll
      for (int n = 0; n < 2; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int token = first_token + 64 * tile + 16 * warp + 8 * n + 2 * t + (e & 1);
          if (token >= end_token) s[tile][n][e] = -INFINITY;
          top[e >> 1] = fmaxf(top[e >> 1], s[tile][n][e]);
        }
      }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      top[h] = fmaxf(top[h], __shfl_xor_sync(~0u, top[h], 1));
      top[h] = fmaxf(top[h], __shfl_xor_sync(~0u, top[h], 2));
      if (t == 0) x.row_max[warp][g + 8 * h] = top[h];
    }
    ptx::NamedBarrier(kConsumerBarrier, kConsumerThreads);
    float shift[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float next = m[h];
#pragma unroll
      for (int w = 0; w < kConsumerWarps; ++w) next = fmaxf(next, x.row_max[w][g + 8 * h]);
      const float decay = Exp2((m[h] - next) * scale_log2);
      m[h] = next;
      shift[h] = next * scale_log2;
      l[h] *= decay;
#pragma unroll
      for (int i = 0; i < 2 * kPairs; ++i) {
        o[i][2 * h] *= decay;
        o[i][2 * h + 1] *= decay;
      }
    }
#pragma unroll
    for (int tile = 0; tile < kPassTiles; ++tile) {
      if (tile >= tiles) break;
#pragma unroll
      for (int n = 0; n < 2; ++n) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const float p0 = Exp2(fmaf(s[tile][n][2 * h], scale_log2, -shift[h]));
          const float p1 = Exp2(fmaf(s[tile][n][2 * h + 1], scale_log2, -shift[h]));
          l[h] += p0 + p1;
          const uint32_t column = 64 * tile + 16 * warp + 8 * n + 2 * t;
          const uint32_t at = ((g + 8 * h) * kProbabilityStride + column) * 2;
          asm volatile("st.shared.u32 [%0], %1;" ::"r"(x.probabilities + at), "r"(PackBf16(p0, p1))
                       : "memory");
        }
      }
    }
    ptx::NamedBarrier(kConsumerBarrier, kConsumerThreads);
  }

  // o += P V over one tile; rows at and past `valid` may hold anything and count as zero.
  template <bool kPartial>
  __device__ void Values(uint32_t tile, int tile_in_pass, int valid, const Exchange& x) {
    const int row = lane & 7, matrix = lane >> 3;
    const int first = warp * kColumns;
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      uint32_t p[4];
      const uint32_t column = 64 * tile_in_pass + 16 * step + (matrix >> 1) * 8;
      ptx::LoadMatrix4(
          p, x.probabilities + (((matrix & 1) * 8 + row) * kProbabilityStride + column) * 2);
      uint32_t keep[2] = {~0u, ~0u};
      if constexpr (kPartial) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int token = 16 * step + 8 * half + 2 * t;
          keep[half] = (token < valid ? 0xffffu : 0u) | (token + 1 < valid ? 0xffff0000u : 0u);
        }
      }
#pragma unroll
      for (int pair = 0; pair < kPairs; ++pair) {
        const int token = 16 * step + (matrix & 1) * 8 + row;
        uint32_t v[4];
        if constexpr (kIsBf16) {
          const int byte = 2 * (first + 16 * pair + (matrix >> 1) * 8);
          ptx::LoadMatrix4Transposed(v, tile + SwizzledTileOffset(kRowBytes, token, byte));
        } else {  // word = (token 2t: columns 2g, 2g + 1), (token 2t + 1: the same)
          uint32_t low, high;
          LoadMatrix2Transposed(low, high,
                                tile + SwizzledTileOffset(kRowBytes, token, first + 16 * pair));
          v[0] = E4m3BytesToBf16<0, 2>(low);
          v[1] = E4m3BytesToBf16<0, 2>(high);
          v[2] = E4m3BytesToBf16<1, 3>(low);
          v[3] = E4m3BytesToBf16<1, 3>(high);
        }
        ptx::MmaBf16(o[2 * pair], p, v[0] & keep[0], v[1] & keep[1]);
        ptx::MmaBf16(o[2 * pair + 1], p, v[2] & keep[0], v[3] & keep[1]);
      }
    }
  }

  __device__ static void LoadMatrix2Transposed(uint32_t& low, uint32_t& high, uint32_t shared) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(low), "=r"(high)
                 : "r"(shared)
                 : "memory");
  }

  // Calls store(head, column, value, value of column + 1) for all of this thread's outputs.
  template <typename Store>
  __device__ void ForEachOutput(int head_count, Store store) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int head = g + 8 * h;
      if (head >= head_count) continue;
#pragma unroll
      for (int pair = 0; pair < kPairs; ++pair) {
        const int column = warp * kColumns + 16 * pair;
        const float* even = &o[2 * pair][2 * h];
        const float* odd = &o[2 * pair + 1][2 * h];
        if constexpr (kIsBf16) {
          store(h, head, column + 2 * t, even[0], even[1]);
          store(h, head, column + 8 + 2 * t, odd[0], odd[1]);
        } else {
          store(h, head, column + 4 * t, even[0], odd[0]);
          store(h, head, column + 4 * t + 2, even[1], odd[1]);
        }
      }
    }
  }
};

__device__ void StoreOutput(const PagedAttentionArgs& args, int row, int column, float a, float b) {
  const uint32_t pair = PackBf16(a, b);
  const int width = args.shape.q_heads * args.shape.kv.head_dim;
  if (args.out != nullptr) {
    *reinterpret_cast<uint32_t*>(args.out + static_cast<size_t>(row) * width + column) = pair;
  }
  if (args.out_packed != nullptr) {
    const size_t at = (static_cast<size_t>(column / 8) * args.packed_rows + row) * 8 + column % 8;
    *reinterpret_cast<uint32_t*>(args.out_packed + at) = pair;
  }
}

// Floats of a chunk's partial: O [slot_heads][head_dim], then m and l [slot_heads] each; whole
// 16-byte pieces, so that every slot can be read as float4.
__device__ size_t PartialFloats(const DecodeParams& p) {
  const size_t floats = static_cast<size_t>(p.slot_heads) * (p.args.shape.kv.head_dim + 2);
  return (floats + 3) / 4 * 4;
}

__device__ float* PartialOf(const DecodeParams& p, int row, int unit, int chunk) {
  const size_t counters = (static_cast<size_t>(p.args.rows) * p.units * 4 + 255) / 256 * 256;
  const size_t slot = (static_cast<size_t>(row) * p.units + unit) * p.config.chunks_per_row + chunk;
  float* partials = reinterpret_cast<float*>(static_cast<char*>(p.args.workspace) + counters);
  return partials + slot * PartialFloats(p);
}

// Folds all chunks of (row, unit) in chunk order. The weights are made once, side by side, in the
// probabilities' shared memory; then every thread's loads are independent and many are in flight:
// the fold stands at the end of a row, where nothing hides its latency.
template <int kHeadDim>
__device__ void Combine(const DecodeParams& p, const Item& item, const Exchange& x, int first_head,
                        int head_count, float v_scale) {
  constexpr int kPieces = kHeadsPerTile * kHeadDim / 4 / kConsumerThreads;  // of 4 columns a thread
  constexpr int kChunksInFlight = 4;
  const int unit = item.kv_head * p.head_tiles + item.head_tile;
  const float* partial = PartialOf(p, item.row, unit, 0);
  const size_t stride = PartialFloats(p);
  const float* statistics = partial + p.slot_heads * kHeadDim;
  float* weights = x.weights;
  for (int i = threadIdx.x; i < item.chunks * kHeadsPerTile; i += kConsumerThreads) {
    const int head = i % kHeadsPerTile;
    const float* of_chunk = statistics + i / kHeadsPerTile * stride;
    const bool exists = head < head_count;
    weights[i] = exists ? __ldcg(of_chunk + head) : -INFINITY;
    weights[i + kMaxChunks * kHeadsPerTile] =
        exists ? __ldcg(of_chunk + p.slot_heads + head) : 0.0f;
  }
  ptx::NamedBarrier(kConsumerBarrier, kConsumerThreads);
  if (threadIdx.x < kHeadsPerTile) {
    float* m = weights + threadIdx.x;
    float top = -INFINITY, sum = 0.0f;
    for (int c = 0; c < item.chunks; ++c) top = fmaxf(top, m[c * kHeadsPerTile]);
    for (int c = 0; c < item.chunks; ++c) {
      const float weight = Exp2(m[c * kHeadsPerTile] - top);
      sum = fmaf(weight, m[(kMaxChunks + c) * kHeadsPerTile], sum);
      m[c * kHeadsPerTile] = weight;
    }
    x.row_sum[0][threadIdx.x] = v_scale / sum;
  }
  ptx::NamedBarrier(kConsumerBarrier, kConsumerThreads);
  float o[kPieces][4] = {};
  const int piece = threadIdx.x * 4;
#pragma unroll kChunksInFlight
  for (int c = 0; c < item.chunks; ++c) {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const int at = piece + i * kConsumerThreads * 4;
      if (at >= head_count * kHeadDim) continue;
      const float weight = weights[c * kHeadsPerTile + at / kHeadDim];
      const float4 value = __ldcg(reinterpret_cast<const float4*>(partial + c * stride + at));
      o[i][0] = fmaf(weight, value.x, o[i][0]);
      o[i][1] = fmaf(weight, value.y, o[i][1]);
      o[i][2] = fmaf(weight, value.z, o[i][2]);
      o[i][3] = fmaf(weight, value.w, o[i][3]);
    }
  }
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
    const int at = piece + i * kConsumerThreads * 4;
    if (at >= head_count * kHeadDim) continue;
    const float factor = x.row_sum[0][at / kHeadDim];
    const int column = first_head * kHeadDim + at;
    StoreOutput(p.args, item.row, column, o[i][0] * factor, o[i][1] * factor);
    StoreOutput(p.args, item.row, column + 2, o[i][2] * factor, o[i][3] * factor);
  }
  ptx::NamedBarrier(kConsumerBarrier, kConsumerThreads);  // the next item writes what this one read
}

// Writes the item's result: to the output when the row has one chunk, else to its partial slot.
template <int kHeadDim, KvType kType>
__device__ void Finish(const DecodeParams& p, const Item& item, const Exchange& x, float scale_log2,
                       Consumer<kHeadDim, kType>* c) {
  const PagedAttentionArgs& args = p.args;
  const int group = args.shape.group();
  const int first_head = item.kv_head * group + item.head_tile * kHeadsPerTile;
  const int head_count = min(kHeadsPerTile, group - item.head_tile * kHeadsPerTile);
  const float v_scale = args.v_scale == nullptr ? 1.0f : args.v_scale[item.kv_head];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    c->l[h] += __shfl_xor_sync(~0u, c->l[h], 1);
    c->l[h] += __shfl_xor_sync(~0u, c->l[h], 2);
    if (c->t == 0) x.row_sum[c->warp][c->g + 8 * h] = c->l[h];
  }
  ptx::NamedBarrier(kConsumerBarrier, kConsumerThreads);
  float sum[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int head = c->g + 8 * h;
    sum[h] = (x.row_sum[0][head] + x.row_sum[1][head]) + (x.row_sum[2][head] + x.row_sum[3][head]);
  }
  if (item.chunks == 1) {
    c->ForEachOutput(head_count, [&](int h, int head, int column, float a, float b) {
      const float factor = v_scale / sum[h];
      StoreOutput(args, item.row, (first_head + head) * kHeadDim + column, a * factor, b * factor);
    });
    return;
  }
  const int unit = item.kv_head * p.head_tiles + item.head_tile;
  float* partial = PartialOf(p, item.row, unit, item.chunk);
  c->ForEachOutput(head_count, [&](int, int head, int column, float a, float b) {
    *reinterpret_cast<float2*>(partial + head * kHeadDim + column) = make_float2(a, b);
  });
  if (c->warp == 0 && c->t == 0) {
    float* statistics = partial + p.slot_heads * kHeadDim;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      if (c->g + 8 * h >= head_count) continue;
      statistics[c->g + 8 * h] = c->m[h] * scale_log2;
      statistics[p.slot_heads + c->g + 8 * h] = sum[h];
    }
  }
  ptx::NamedBarrier(kConsumerBarrier, kConsumerThreads);
  if (threadIdx.x == 0) {
    uint32_t* counter = static_cast<uint32_t*>(args.workspace) + item.row * p.units + unit;
    const bool is_last = ptx::AddAcquireRelease(counter) + 1 == static_cast<uint32_t>(item.chunks);
    if (is_last) *counter = 0;  // as the next launch wants to find it
    *x.is_last = is_last;
  }
  ptx::NamedBarrier(kConsumerBarrier, kConsumerThreads);
  if (*x.is_last) Combine<kHeadDim>(p, item, x, first_head, head_count, v_scale);
}

template <int kHeadDim, KvType kType>
__device__ void Consume(const DecodeParams& p, TilePipe pipe, const Exchange& x) {
  const PagedAttentionArgs& args = p.args;
  const int group = args.shape.group();
  ptx::WaitForPredecessor();
  WorkCursor cursor(p);
  Consumer<kHeadDim, kType> c;
  Item item;
  for (int index = blockIdx.x; cursor.Find(index, &item); index += gridDim.x) {
    const int first_head = item.kv_head * group + item.head_tile * kHeadsPerTile;
    const float k_scale = args.k_scale == nullptr ? 1.0f : args.k_scale[item.kv_head];
    const float scale_log2 = args.softmax_scale * k_scale * kLog2E;
    c.LoadQuery(
        args.q + (static_cast<size_t>(item.row) * args.shape.q_heads + first_head) * kHeadDim,
        min(kHeadsPerTile, group - item.head_tile * kHeadsPerTile));
    for (int pass = item.begin; pass < item.end; pass += kPassTokens) {
      const int tiles = min(kPassTiles, (item.end - pass + kTokensPerBlock - 1) / kTokensPerBlock);
      float s[kPassTiles][2][4];
#pragma unroll
      for (int tile = 0; tile < kPassTiles; ++tile) {
        if (tile >= tiles) break;
        c.Scores(pipe.Await(), s[tile]);
        pipe.Release();
      }
      c.Softmax(s, tiles, pass, item.end, scale_log2, x);
      for (int tile = 0; tile < tiles; ++tile) {
        const int valid = item.end - (pass + tile * kTokensPerBlock);
        const uint32_t address = pipe.Await();
        if (valid >= kTokensPerBlock) {
          c.template Values<false>(address, tile, valid, x);
        } else {
          c.template Values<true>(address, tile, valid, x);
        }
        pipe.Release();
      }
    }
    Finish<kHeadDim, kType>(p, item, x, scale_log2, &c);
  }
}

template <int kHeadDim, KvType kType>
__global__ __launch_bounds__(kThreads,
                             2) void DecodeAttention(const __grid_constant__ DecodeParams params) {
  extern __shared__ __align__(128) char shared[];
  constexpr KvShape kTile = {1, kHeadDim, kType};
  char* behind_tiles = shared + params.config.stages * KvTileBytes(kTile);
  float* statistics = reinterpret_cast<float*>(behind_tiles + 16 * kProbabilityStride * 2);
  int* flag = reinterpret_cast<int*>(statistics + 2 * kConsumerWarps * kHeadsPerTile);
  const Exchange exchange = {
      .probabilities = ptx::SharedAddress(behind_tiles),
      .row_max = reinterpret_cast<float(*)[kHeadsPerTile]>(statistics),
      .row_sum = reinterpret_cast<float(*)[kHeadsPerTile]>(statistics + 4 * kHeadsPerTile),
      .is_last = flag,
      .weights = reinterpret_cast<float*>(behind_tiles)};
  const TilePipe pipe = {.tiles = ptx::SharedAddress(shared),
                         .barriers = ptx::SharedAddress(flag + 4),
                         .tile_bytes = KvTileBytes(kTile),
                         .stages = static_cast<uint32_t>(params.config.stages)};
  ptx::AllowSuccessor();
  if (threadIdx.x == 0) pipe.Init(kConsumerWarps);
  __syncthreads();
  if (threadIdx.x >= kConsumerThreads) {
    Produce(params, pipe);
  } else {
    Consume<kHeadDim, kType>(params, pipe, exchange);
  }
}

}  // namespace

KernelError LaunchDecodeAttention(const DecodeAttentionConfig& config,
                                  const PagedAttentionArgs& args, const LaunchContext& context) {
  const KernelError error = CheckAttentionArgs(args);
  if (!error.ok()) return error;
  if (args.q_start != nullptr) return {kInvalidArgument, "decode attention: q_start must be null"};
  if (args.workspace == nullptr) return {kInvalidArgument, "decode attention: workspace"};
  if (config.blocks <= 0) return {kInvalidArgument, "decode attention: config"};
  if (args.rows == 0) return {};
  const int head_tiles = (args.shape.group() + kHeadsPerTile - 1) / kHeadsPerTile;
  const DecodeParams params = {.args = args,
                               .config = config,
                               .head_tiles = head_tiles,
                               .units = args.shape.kv.kv_heads * head_tiles,
                               .slot_heads = std::min(args.shape.group(), kHeadsPerTile)};
  const LaunchShape shape = {.grid = dim3(config.blocks),
                             .block = dim3(kThreads),
                             .shared_bytes = static_cast<size_t>(config.shared_bytes)};
  const bool is_wide = args.shape.kv.head_dim == 128;
  if (args.shape.kv.type == KvType::kBf16) {
    return is_wide ? Launch(DecodeAttention<128, KvType::kBf16>, shape, context, params)
                   : Launch(DecodeAttention<64, KvType::kBf16>, shape, context, params);
  }
  return is_wide ? Launch(DecodeAttention<128, KvType::kE4m3>, shape, context, params)
                 : Launch(DecodeAttention<64, KvType::kE4m3>, shape, context, params);
}

}  // namespace behemoth::kernels
