// Prefill attention on any device from sm_80. Limit: the tensor cores, 4 * head_dim FLOP per (query
// head, visible token).
//
// A block owns 128 packed rows of one KV head: row r is query token r / group, head r % group, so
// the heads that share K and V share each tile's load, and short chunks fill the rows too. Four
// warps of 32 rows walk the KV tiles in ascending order: with two 16-row halves a warp, each K or V
// fragment read from shared memory feeds two MMAs (64 KB read per 4.2 MFLOP: 1,024 clocks beside
// 1,536 of MMA; with 16 rows a warp the reads would be the limit). The tile after next loads
// meanwhile, and a second block an SM covers softmax.
//
// Tiles start at multiples of 64 tokens of the sequence, whatever the chunk. A tile that is wholly
// masked for a row changes nothing in it: its maximum stays, the decay is 2^0, the sums add 0. So a
// row's bits do not depend on which other rows share its block: chunk borders are invisible.
#include "kernels/common/launch.cuh"
#include "kernels/common/ptx.cuh"
#include "kernels/paged_attention/device_math.cuh"
#include "kernels/paged_attention/output.cuh"
#include "kernels/paged_attention/prefill_chunk.cuh"
#include "kernels/paged_attention/prefill_kernels.h"
#include "kernels/paged_attention/tile_pipe.cuh"

namespace behemoth::kernels {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kRows = kPrefillRows;
constexpr float kLog2E = 1.44269504088896f;

template <int kHeadDim, KvType kType>
struct PrefillBlock {
  static constexpr int kRowBytes = kHeadDim * 2;  // of Q, K, V as the MMAs read them
  static constexpr int kTileBytes = kTokensPerBlock * kRowBytes;
  static constexpr bool kConverts = kType == KvType::kE4m3;
  static constexpr int kStoredTileBytes = kConverts ? kTileBytes / 2 : kTileBytes;
  static constexpr int kDimSteps = kHeadDim / 16;
  static constexpr int kTokenPairs = kTokensPerBlock / 16;
  // Shared memory: Q, two stages of (K, V) as stored, the converted pair (fp8), barriers.
  static constexpr int kStages = kRows * kRowBytes;
  static constexpr int kConverted = kStages + 4 * kStoredTileBytes;
  static constexpr int kBarriers = kConverted + (kConverts ? 2 * kTileBytes : 0);

  const PagedAttentionArgs& args;
  const PrefillChunk chunk;
  uint32_t shared;
  int warp, lane;
  float o[2][2 * kDimSteps][4];
  float m[2][2], l[2][2];

  __device__ PrefillBlock(const PagedAttentionArgs& a, const PrefillChunk& c, uint32_t s)
      : args(a), chunk(c), shared(s), warp(threadIdx.x / 32), lane(threadIdx.x & 31) {}

  __device__ uint32_t Full(int stage, int part) const {
    return shared + kBarriers + 8 * (2 * stage + part);
  }
  __device__ uint32_t Empty(int stage) const { return shared + kBarriers + 32 + 8 * stage; }

  __device__ int Visible(int packed) const { return chunk.Visible(packed, args.shape.group()); }
  // Q lies in two tiles of 64 rows.
  __device__ static uint32_t QueryOffset(int row, int byte) {
    return row / 64 * kTileBytes + SwizzledTileOffset(kRowBytes, row % 64, byte);
  }

  __device__ void LoadQuery(char* q_tile) const {
    constexpr int kVectors = kHeadDim / 8;
    const int group = args.shape.group();
    for (int i = threadIdx.x; i < kRows * kVectors; i += kThreads) {
      const int row = i / kVectors, vector = i % kVectors;
      const int token = (chunk.first_packed + row) / group;
      const int head = blockIdx.y * group + (chunk.first_packed + row) % group;
      uint4 value = make_uint4(0, 0, 0, 0);
      if (token < chunk.q_len) {
        const size_t at = static_cast<size_t>(chunk.q_begin + token) * args.shape.q_heads + head;
        value = *reinterpret_cast<const uint4*>(args.q + at * kHeadDim + vector * 8);
      }
      *reinterpret_cast<uint4*>(q_tile + QueryOffset(row, vector * 16)) = value;
    }
  }

  // Warp 0. K and V of tile `tile` into stage tile % 2, once everyone has left it.
  __device__ void LoadTile(int tile) const {
    const int stage = tile & 1;
    if (tile >= 2) ptx::BarrierWait(Empty(stage), ((tile >> 1) - 1) & 1);
    const int32_t* table =
        args.block_table + static_cast<size_t>(chunk.row) * args.block_table_stride;
    const char* block =
        static_cast<const char*>(args.kv) + table[tile] * KvBlockBytes(args.shape.kv);
    for (int part = 0; part < 2; ++part) {
      const size_t head = static_cast<size_t>(part * args.shape.kv.kv_heads) + blockIdx.y;
      CopyTile<TileReuse::kAgain>(shared + kStages + (2 * stage + part) * kStoredTileBytes,
                                  block + head * kStoredTileBytes, kStoredTileBytes,
                                  Full(stage, part));
    }
  }

  // fp8 -> bf16, both parts of the stage, all threads.
  __device__ void Convert(char* base, int stage) const {
    constexpr int kVectors = kHeadDim / 16;
    for (int part = 0; part < 2; ++part) {
      const char* from = base + kStages + (2 * stage + part) * kStoredTileBytes;
      char* to = base + kConverted + part * kTileBytes;
      for (int i = threadIdx.x; i < kTokensPerBlock * kVectors; i += kThreads) {
        const int token = i / kVectors, vector = i % kVectors;
        const uint4 in = *reinterpret_cast<const uint4*>(
            from + SwizzledTileOffset(kHeadDim, token, vector * 16));
        const uint4 low = make_uint4(E4m3BytesToBf16<0, 1>(in.x), E4m3BytesToBf16<2, 3>(in.x),
                                     E4m3BytesToBf16<0, 1>(in.y), E4m3BytesToBf16<2, 3>(in.y));
        const uint4 high = make_uint4(E4m3BytesToBf16<0, 1>(in.z), E4m3BytesToBf16<2, 3>(in.z),
                                      E4m3BytesToBf16<0, 1>(in.w), E4m3BytesToBf16<2, 3>(in.w));
        const int at = 32 * vector;
        *reinterpret_cast<uint4*>(to + SwizzledTileOffset(kRowBytes, token, at)) = low;
        *reinterpret_cast<uint4*>(to + SwizzledTileOffset(kRowBytes, token, at + 16)) = high;
      }
    }
  }

  // s[half][n] = Q K^T: rows 32 warp + 16 half + .., tokens 8 n ...
  __device__ void Scores(uint32_t k_tile, float (&s)[2][8][4]) const {
    const int row = lane & 7, matrix = lane >> 3;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int n = 0; n < 8; ++n) s[half][n][0] = s[half][n][1] = s[half][n][2] = s[half][n][3] = 0;
    }
#pragma unroll
    for (int step = 0; step < kDimSteps; ++step) {
      uint32_t q[2][4];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int q_row = 32 * warp + 16 * half + (matrix & 1) * 8 + row;
        ptx::LoadMatrix4(q[half], shared + QueryOffset(q_row, 32 * step + (matrix >> 1) * 16));
      }
#pragma unroll
      for (int pair = 0; pair < kTokenPairs; ++pair) {
        uint32_t k[4];
        const int token = 16 * pair + (matrix >> 1) * 8 + row;
        ptx::LoadMatrix4(
            k, k_tile + SwizzledTileOffset(kRowBytes, token, 32 * step + (matrix & 1) * 16));
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          ptx::MmaBf16(s[half][2 * pair], q[half], k[0], k[1]);
          ptx::MmaBf16(s[half][2 * pair + 1], q[half], k[2], k[3]);
        }
      }
    }
  }

  __device__ void Mask(float (&s)[2][8][4], int first_token) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int row = 32 * warp + 16 * half + 8 * h + (lane >> 2);
        const int visible = Visible(chunk.first_packed + row) - first_token - 2 * (lane & 3);
#pragma unroll
        for (int n = 0; n < 8; ++n) {
          if (8 * n >= visible) s[half][n][2 * h] = -INFINITY;
          if (8 * n + 1 >= visible) s[half][n][2 * h + 1] = -INFINITY;
        }
      }
    }
  }

  __device__ void Softmax(float (&s)[2][8][4], float scale_log2) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float top = m[half][h];
#pragma unroll
        for (int n = 0; n < 8; ++n) {
          top = fmaxf(top, fmaxf(s[half][n][2 * h], s[half][n][2 * h + 1]));
        }
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
        const float finite = top == -INFINITY ? 0.0f : top;  // a row that sees nothing yet
        const float decay = Exp2((m[half][h] - finite) * scale_log2);
        const float shift = finite * scale_log2;
        m[half][h] = top;
        l[half][h] *= decay;
#pragma unroll
        for (int n = 0; n < 8; ++n) {
          float& a = s[half][n][2 * h];
          float& b = s[half][n][2 * h + 1];
          a = Exp2(fmaf(a, scale_log2, -shift));
          b = Exp2(fmaf(b, scale_log2, -shift));
          l[half][h] += a + b;
        }
#pragma unroll
        for (int i = 0; i < 2 * kDimSteps; ++i) {
          o[half][i][2 * h] *= decay;
          o[half][i][2 * h + 1] *= decay;
        }
      }
    }
  }

  // o += P V; V rows at and past `valid` may hold anything and count as zero.
  template <bool kPartial>
  __device__ void Values(uint32_t v_tile, const float (&s)[2][8][4], int valid) {
    const int row = lane & 7, matrix = lane >> 3;
#pragma unroll
    for (int step = 0; step < kTokenPairs; ++step) {
      uint32_t p[2][4];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float* pair = &s[half][2 * step + (i >> 1)][2 * (i & 1)];
          p[half][i] = PackBf16(pair[0], pair[1]);
        }
      }
      uint32_t keep[2] = {~0u, ~0u};
      if constexpr (kPartial) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int token = 16 * step + 8 * i + 2 * (lane & 3);
          keep[i] = (token < valid ? 0xffffu : 0u) | (token + 1 < valid ? 0xffff0000u : 0u);
        }
      }
#pragma unroll
      for (int pair = 0; pair < kDimSteps; ++pair) {
        uint32_t v[4];
        const int token = 16 * step + (matrix & 1) * 8 + row;
        ptx::LoadMatrix4Transposed(
            v, v_tile + SwizzledTileOffset(kRowBytes, token, 32 * pair + (matrix >> 1) * 16));
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          ptx::MmaBf16(o[half][2 * pair], p[half], v[0] & keep[0], v[1] & keep[1]);
          ptx::MmaBf16(o[half][2 * pair + 1], p[half], v[2] & keep[0], v[3] & keep[1]);
        }
      }
    }
  }

  __device__ void StoreOutput(float v_scale) {
    const int group = args.shape.group();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float sum = l[half][h];
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        const int packed = chunk.first_packed + 32 * warp + 16 * half + 8 * h + (lane >> 2);
        if (packed / group >= chunk.q_len) continue;
        const size_t token = chunk.q_begin + packed / group;
        const int first = (blockIdx.y * group + packed % group) * kHeadDim + 2 * (lane & 3);
        const float factor = Visible(packed) == 0 ? 0.0f : v_scale / sum;
        uint32_t pairs[2 * kDimSteps];
#pragma unroll
        for (int i = 0; i < 2 * kDimSteps; ++i) {
          pairs[i] = PackBf16(o[half][i][2 * h] * factor, o[half][i][2 * h + 1] * factor);
        }
        StorePairs(args, token, first, pairs);
      }
    }
  }

  __device__ void Run(char* base) {
    if (warp == 0) LoadTile(0);
    LoadQuery(base);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      m[half][0] = m[half][1] = -INFINITY;
      l[half][0] = l[half][1] = 0.0f;
#pragma unroll
      for (int i = 0; i < 2 * kDimSteps; ++i) {
        o[half][i][0] = o[half][i][1] = o[half][i][2] = o[half][i][3] = 0.0f;
      }
    }
    __syncthreads();
    const float k_scale = args.k_scale == nullptr ? 1.0f : args.k_scale[blockIdx.y];
    const float v_scale = args.v_scale == nullptr ? 1.0f : args.v_scale[blockIdx.y];
    const float scale_log2 = args.softmax_scale * k_scale * kLog2E;
    const int all_visible = Visible(chunk.first_packed);  // what every row of the block sees
    const int end = max(1, chunk.Longest(args.shape.group()));
    const int tiles = (end + kTokensPerBlock - 1) / kTokensPerBlock;
    for (int tile = 0; tile < tiles; ++tile) {
      const int stage = tile & 1, parity = (tile >> 1) & 1;
      if (warp == 0 && tile + 1 < tiles) LoadTile(tile + 1);
      uint32_t k_tile = shared + kStages + 2 * stage * kStoredTileBytes;
      uint32_t v_tile = k_tile + kStoredTileBytes;
      ptx::BarrierWait(Full(stage, 0), parity);
      if constexpr (kConverts) {
        ptx::BarrierWait(Full(stage, 1), parity);
        __syncthreads();  // everyone is done with the pair converted before
        Convert(base, stage);
        __syncthreads();
        k_tile = shared + kConverted;
        v_tile = k_tile + kTileBytes;
      }
      float s[2][8][4];
      Scores(k_tile, s);
      const int first_token = tile * kTokensPerBlock;
      if (first_token + kTokensPerBlock > all_visible) Mask(s, first_token);
      Softmax(s, scale_log2);
      if constexpr (!kConverts) ptx::BarrierWait(Full(stage, 1), parity);
      const int valid = chunk.kv_len - first_token;
      if (valid >= kTokensPerBlock) {
        Values<false>(v_tile, s, valid);
      } else {
        Values<true>(v_tile, s, valid);
      }
      ptx::BarrierArrive(Empty(stage));
    }
    StoreOutput(v_scale);
  }
};

template <int kHeadDim, KvType kType>
__global__ __launch_bounds__(kThreads, 2) void PrefillAttention(
    const __grid_constant__ PagedAttentionArgs args) {
  using Block = PrefillBlock<kHeadDim, kType>;
  extern __shared__ __align__(128) char shared[];
  ptx::AllowSuccessor();
  const uint32_t address = ptx::SharedAddress(shared);
  if (threadIdx.x == 0) {
    for (int i = 0; i < 4; ++i) ptx::BarrierInit(address + Block::kBarriers + 8 * i, kFullArrivals);
    for (int i = 4; i < 6; ++i) ptx::BarrierInit(address + Block::kBarriers + 8 * i, kThreads);
    ptx::FenceBarrierInit();
  }
  ptx::WaitForPredecessor();
  const PrefillChunk chunk = FindChunk(args, blockIdx.x);
  if (chunk.row < 0) return;
  __syncthreads();
  Block block(args, chunk, address);
  block.Run(shared);
}

}  // namespace

KernelError LaunchPrefillMma(const PrefillAttentionConfig& config, const PagedAttentionArgs& args,
                             const LaunchContext& context) {
  const int64_t packed = static_cast<int64_t>(args.tokens) * args.shape.group();
  const LaunchShape shape = {
      .grid = dim3(static_cast<unsigned>(packed / kRows + args.rows), args.shape.kv.kv_heads),
      .block = dim3(kThreads),
      .shared_bytes = static_cast<size_t>(config.shared_bytes)};
  const bool is_wide = args.shape.kv.head_dim == 128;
  if (args.shape.kv.type == KvType::kBf16) {
    return is_wide ? Launch(PrefillAttention<128, KvType::kBf16>, shape, context, args)
                   : Launch(PrefillAttention<64, KvType::kBf16>, shape, context, args);
  }
  return is_wide ? Launch(PrefillAttention<128, KvType::kE4m3>, shape, context, args)
                 : Launch(PrefillAttention<64, KvType::kE4m3>, shape, context, args);
}

}  // namespace behemoth::kernels
