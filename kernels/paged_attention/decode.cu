// Decode attention. Limit: the bytes of K and V (12 query heads a KV head: 12 FLOP a byte in bf16,
// far under the tensor cores' 250). One tile of 64 tokens is 32 KB for K and V together and costs
// 128 MMAs, 192 clocks of an SM; streaming it takes 2,400 clocks of an SM's share of 3 TB/s.
//
// A block is one producer warp and four consumer warps. An item of work is one chunk of one KV head
// of one row, walked in passes of up to 256 tokens:
//   scores   each warp owns 16 tokens of every tile; S = Q K^T stays in registers for the pass;
//   softmax  one maximum for the pass over all warps, P to shared memory as bf16;
//   values   each warp owns a quarter of the head's columns and adds P V over the pass's tokens.
// So a pass has two barriers among the warps, and no output is ever reduced between them.
//
// Several chunks a row: each leaves (O, m, l) in the workspace and counts itself. Once a block is
// through with its items, its consumer warps fold finished rows in chunk order, one warp a query
// head. (A fold by whoever arrives last stood in the stream: 7 us for 16 chunks, and a block that
// folded was late, so it arrived last and folded again.) Waiting for other blocks' chunks is safe:
// the grid fits on the device, and nothing in it starts after a wait.
#include <algorithm>

#include "kernels/common/launch.cuh"
#include "kernels/common/ptx.cuh"
#include "kernels/paged_attention/decode_fold.cuh"
#include "kernels/paged_attention/decode_items.cuh"
#include "kernels/paged_attention/device_math.cuh"
#include "kernels/paged_attention/output.cuh"
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
static_assert(kMinChunkTokens % kPassTokens == 0);

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
  DecodeItem item;
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

// Writes the item's result: to the output when the row has one chunk, else to its partial slot.
template <int kHeadDim, KvType kType>
__device__ void Finish(const DecodeParams& p, const DecodeItem& item, const Exchange& x,
                       float scale_log2, Consumer<kHeadDim, kType>* c) {
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
      StorePair(args, item.row, (first_head + head) * kHeadDim + column,
                PackBf16(a * factor, b * factor));
    });
    return;
  }
  const DecodeSlot slot(p, item.row, item.kv_head * p.head_tiles + item.head_tile);
  float* partial = slot.partials + item.chunk * slot.stride;
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
  if (threadIdx.x == 0) ptx::AddRelease(slot.arrived);
}

template <int kHeadDim, KvType kType>
__device__ void Consume(const DecodeParams& p, TilePipe pipe, const Exchange& x) {
  const PagedAttentionArgs& args = p.args;
  const int group = args.shape.group();
  if (!args.history_is_settled) ptx::WaitForPredecessor();
  WorkCursor cursor(p);
  if (args.history_is_settled) ptx::WaitForPredecessor();
  Consumer<kHeadDim, kType> c;
  DecodeItem item;
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
  const Exchange exchange = {
      .probabilities = ptx::SharedAddress(behind_tiles),
      .row_max = reinterpret_cast<float(*)[kHeadsPerTile]>(statistics),
      .row_sum = reinterpret_cast<float(*)[kHeadsPerTile]>(statistics + 4 * kHeadsPerTile)};
  const TilePipe pipe = {
      .tiles = ptx::SharedAddress(shared),
      .barriers = ptx::SharedAddress(statistics + 2 * kConsumerWarps * kHeadsPerTile),
      .tile_bytes = KvTileBytes(kTile),
      .stages = static_cast<uint32_t>(params.config.stages)};
  ptx::AllowSuccessor();
  if (threadIdx.x == 0) pipe.Init(kConsumerWarps);
  __syncthreads();
  if (threadIdx.x >= kConsumerThreads) {
    Produce(params, pipe);
  } else {
    Consume<kHeadDim, kType>(params, pipe, exchange);
    FoldRows<kHeadDim, kConsumerWarps>(params);
  }
}

}  // namespace

KernelError LaunchDecodeAttention(const DecodeAttentionConfig& config,
                                  const PagedAttentionArgs& args, const LaunchContext& context) {
  const KernelError error = CheckAttentionArgs(args);
  if (!error.ok()) return error;
  if (args.q_start != nullptr) return {kInvalidArgument, "decode attention: q_start must be null"};
  if (args.workspace == nullptr) return {kInvalidArgument, "decode attention: workspace"};
  if (config.blocks <= 0 || config.chunks_per_row > kMaxChunks) {
    return {kInvalidArgument, "decode attention: config"};
  }
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
