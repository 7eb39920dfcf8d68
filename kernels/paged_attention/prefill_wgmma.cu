// Prefill attention on Hopper. Limit: the tensor cores, 4 * head_dim FLOP per (query head, visible
// token): 1,024 clocks of an SM per 64 rows and 128 keys at head_dim 128.
//
// One block an SM walks over pieces of 128 packed rows of one KV head (prefill_chunk.cuh) and, per
// piece, over the keys in blocks of 128. Two consumer warpgroups own 64 rows each; a producer
// warpgroup (prefill_ring.cuh) brings Q, into two slots, and a ring of K and V.
// A warpgroup's 128 x 64 exponentials take 512 clocks of an SM's special-function units beside as
// many for maxima, sums and conversions: as long as its products. So the softmax runs under
// products twice over (FlashAttention-3, arXiv:2407.08608): a warpgroup's own, as the scores of the
// next block of keys are issued before the values of this one, and the other warpgroup's, as the
// two take turns at the tensor cores. P stays in registers. Q, K and V come from shared memory: 6
// KB per product of 64 clocks, 3/4 of its rate.
//
// Blocks of keys start at multiples of 128 tokens of the sequence, whatever the chunk. A block that
// is wholly masked for a row changes nothing in it: its maximum stays, the decay is 2^0, the sums
// add 0. So a row's bits do not depend on which other rows share its piece: chunk borders are
// invisible.
#include "kernels/common/launch.cuh"
#include "kernels/common/ptx.cuh"
#include "kernels/common/warpgroup.cuh"
#include "kernels/paged_attention/attention_wgmma.cuh"
#include "kernels/paged_attention/device_math.cuh"
#include "kernels/paged_attention/output.cuh"
#include "kernels/paged_attention/prefill_kernels.h"
#include "kernels/paged_attention/prefill_ring.cuh"

namespace behemoth::kernels {
namespace {

constexpr int kThreads = 32 * kConsumerWarps + 128;
[[maybe_unused]] constexpr int kTurnBarrier =
    1;  // and 2: the warpgroups' turns at the tensor cores
[[maybe_unused]] constexpr float kLog2E = 1.44269504088896f;

// One warpgroup's 64 rows. A thread has rows g and g + 8 of its warp's 16, g = lane / 4, and of
// every eight columns the pair at 2 * (lane % 4).
template <typename S>
struct Consumer {
  static constexpr int kHeadDim = 64 * S::kPanels;

  const PagedAttentionArgs& args;
  const S& shared;
  int consumer, lane;
  int first_row;  // of the piece's 128
  RingCursor<S::kStages> cursor;
  float s[kKeys / 8][4];
  uint32_t p[kKeys / 16][4];
  float o[kHeadDim / 8][4];
  int round = 0, block = 0, blocks = 0;  // whose scores are next
  float m[2], l[2], decay[2];
  float ended_l[2];  // of the piece before
  float scale_log2;
  int visible[2];   // keys that this thread's rows see
  int seen_by_all;  // that every row of the piece sees

  __device__ Consumer(const PagedAttentionArgs& a, const S& sh)
      : args(a), shared(sh), lane(threadIdx.x % 32) {
    const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
    consumer = warp / 4;
    first_row = 16 * warp + lane / 4;
  }

  // The stage of the next entry, once it is full.
  __device__ int Await() {
    const int stage = cursor.stage;
    ptx::BarrierWait(shared.Full(stage), cursor.parity);
    cursor.Advance();
    return stage;
  }

  __device__ void IssueScores(uint32_t query, int stage) {
    const uint64_t q = ptx::RowDescriptor(query), k = ptx::RowDescriptor(shared.Slot(stage));
    ptx::PinRegisters(s);
    ptx::WgmmaFence();
#pragma unroll
    for (int step = 0; step < kHeadDim / 16; ++step) {
      const int panel = step / 4, within = step % 4 * 32;
      ptx::WgmmaScores(s, q + (panel * kPanelBytes + within) / 16,
                       k + (2 * panel * kPanelBytes + within) / 16, step != 0);
    }
    ptx::WgmmaCommit();
  }

  __device__ void IssueValues(int stage) {
    const uint64_t v = ptx::ColumnDescriptor(shared.Slot(stage));
    ptx::PinRegisters(p);
    ptx::PinRegisters(o);
    ptx::WgmmaFence();
#pragma unroll
    for (int step = 0; step < kKeys / 16; ++step) {
      const int at = step / 4 * S::kTileBytes + step % 4 * 16 * kPanelRowBytes;
      ptx::WgmmaValues(o, p[step], v + at / 16);
    }
    ptx::WgmmaCommit();
  }

  __device__ void Mask(int first_key) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int limit = visible[h] - first_key - 2 * (lane & 3);
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
        if (8 * n >= limit) s[n][2 * h] = -INFINITY;
        if (8 * n + 1 >= limit) s[n][2 * h + 1] = -INFINITY;
      }
    }
  }

  // Scores -> probabilities in s; m, l and the decay that o is due. Every row sees the first key,
  // so its maximum is finite from the first block on.
  __device__ void Softmax() {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float top[2] = {m[h], -INFINITY};
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
        top[n & 1] = fmaxf(top[n & 1], fmaxf(s[n][2 * h], s[n][2 * h + 1]));
      }
      top[0] = fmaxf(top[0], top[1]);
      top[0] = fmaxf(top[0], __shfl_xor_sync(~0u, top[0], 1));
      top[0] = fmaxf(top[0], __shfl_xor_sync(~0u, top[0], 2));
      decay[h] = Exp2((m[h] - top[0]) * scale_log2);
      m[h] = top[0];
      const float shift = top[0] * scale_log2;
      float sum[2] = {0.0f, 0.0f};
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
        s[n][2 * h] = Exp2(fmaf(s[n][2 * h], scale_log2, -shift));
        s[n][2 * h + 1] = Exp2(fmaf(s[n][2 * h + 1], scale_log2, -shift));
        sum[n & 1] += s[n][2 * h] + s[n][2 * h + 1];
      }
      l[h] = fmaf(l[h], decay[h], sum[0] + sum[1]);
    }
  }

  // Skipping a decay of 1 changes no bit and is the rule once a row has seen its maximum.
  __device__ void DecayOutput() {
    if (__all_sync(~0u, decay[0] == 1.0f && decay[1] == 1.0f)) return;
#pragma unroll
    for (int i = 0; i < kHeadDim / 8; ++i) {
      o[i][0] *= decay[0];
      o[i][1] *= decay[0];
      o[i][2] *= decay[1];
      o[i][3] *= decay[1];
    }
  }

  __device__ void PackProbabilities() {
#pragma unroll
    for (int step = 0; step < kKeys / 16; ++step) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* pair = &s[2 * step + (i >> 1)][2 * (i & 1)];
        p[step][i] = PackBf16(pair[0], pair[1]);
      }
    }
  }

  // Moves on to the next block of keys, and from a piece's last to the next piece. Of a piece only
  // what every block needs stays in registers.
  __device__ bool Advance() {
    if (++block < blocks) return true;
    ++round;
    return StartPiece();
  }

  __device__ bool StartPiece() {
    PrefillPiece piece;
    if (!FindPiece(args, round, &piece)) return false;
    const int group = args.shape.group();
    const float k_scale = args.k_scale == nullptr ? 1.0f : args.k_scale[piece.kv_head];
    scale_log2 = args.softmax_scale * k_scale * kLog2E;
    seen_by_all = piece.chunk.Visible(piece.chunk.first_packed, group);
    block = 0;
    blocks = piece.blocks;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int packed = piece.chunk.first_packed + first_row + 8 * h;
      visible[h] = max(1, piece.chunk.Visible(packed, group));
      ended_l[h] = l[h];
      m[h] = -INFINITY;
      l[h] = 0.0f;
    }
    return true;
  }

  __device__ void ClearOutput() {
#pragma unroll
    for (int i = 0; i < kHeadDim / 8; ++i) o[i][0] = o[i][1] = o[i][2] = o[i][3] = 0.0f;
  }

  // Waits for the block's keys, and for the piece's queries where it begins.
  __device__ int IssueScores() {
    const int slot = round & 1;
    if (block == 0) ptx::BarrierWait(shared.QueryFull(slot, consumer), (round >> 1) & 1);
    const int stage = Await();
    IssueScores(shared.Query(slot, consumer), stage);
    return stage;
  }

  // ptxas moves a wait for wgmma up past arithmetic that does not need it: the softmax would start
  // when the values are done and not run under them (seen in SASS of CUDA 13.0). It does not move
  // it past a store that needs the softmax's result. No sum of exponentials is negative, so nothing
  // is ever stored.
  __device__ void AnchorSoftmax() const {
    asm volatile(
        "{\n.reg .pred negative;\nsetp.lt.f32 negative, %0, 0f00000000;\n"
        "@negative st.shared.f32 [%1], %0;\n}\n" ::"f"(l[0] + l[1]),
        "r"(shared.base)
        : "memory");
  }

  // Called once the scores have arrived.
  __device__ void TakeScores(int stage) {
    ptx::PinRegisters(s);
    ArriveOnce(shared.Empty(stage));
    if (block + 1 == blocks) ArriveOnce(shared.QueryEmpty(round & 1, consumer));
    if ((block + 1) * kKeys > seen_by_all) Mask(block * kKeys);
    Softmax();
    AnchorSoftmax();
  }

  __device__ void Store(int ended_round, const float (&sums)[2]) {
    PrefillPiece piece;
    FindPiece(args, ended_round, &piece);
    const int group = args.shape.group();
    const float v_scale = args.v_scale == nullptr ? 1.0f : args.v_scale[piece.kv_head];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float sum = sums[h];
      sum += __shfl_xor_sync(~0u, sum, 1);
      sum += __shfl_xor_sync(~0u, sum, 2);
      const int packed = piece.chunk.first_packed + first_row + 8 * h;
      if (packed / group >= piece.chunk.q_len) continue;
      const size_t token = piece.chunk.q_begin + packed / group;
      const int column = (piece.kv_head * group + packed % group) * kHeadDim + 2 * (lane & 3);
      const bool sees_nothing = piece.chunk.Visible(packed, group) == 0;
      const float factor = sees_nothing ? 0.0f : v_scale / sum;
      uint32_t pairs[kHeadDim / 8];
#pragma unroll
      for (int i = 0; i < kHeadDim / 8; ++i) {
        pairs[i] = PackBf16(o[i][2 * h] * factor, o[i][2 * h + 1] * factor);
      }
      StorePairs(args, token, column, pairs);
    }
  }

  // p holds the probabilities of one block of keys while the scores of the next one are made, and
  // the next one may belong to the next piece: the tensor cores do not wait at a piece's end.
  __device__ void Run() {
    if (!StartPiece()) return;
    ClearOutput();
    const int first = IssueScores();
    ptx::WgmmaWait<0>();
    TakeScores(first);
    PackProbabilities();
    while (Advance()) {
      ptx::NamedBarrier(kTurnBarrier + consumer, 64 * 4);
      const int k_stage = IssueScores();
      const int v_stage = Await();
      IssueValues(v_stage);
      ptx::NamedBarrierArrive(kTurnBarrier + 1 - consumer, 64 * 4);
      ptx::WgmmaWait<1>();
      TakeScores(k_stage);
      ptx::WgmmaWait<0>();
      ptx::PinRegisters(o);
      ptx::PinRegisters(p);
      ArriveOnce(shared.Empty(v_stage));
      if (block == 0) {
        Store(round - 1, ended_l);
        ClearOutput();
      } else {
        DecayOutput();
      }
      PackProbabilities();
    }
    const int last = Await();
    IssueValues(last);
    ptx::WgmmaWait<0>();
    ptx::PinRegisters(o);
    ArriveOnce(shared.Empty(last));
    Store(round - 1, l);
  }
};

template <typename S>
__device__ void Consume(const PagedAttentionArgs& args, const S& shared) {
  Consumer<S> consumer(args, shared);
  if (consumer.consumer == 1) ptx::NamedBarrierArrive(kTurnBarrier, 64 * 4);  // 0 goes first
  consumer.Run();
  if (consumer.consumer == 0) ptx::NamedBarrier(kTurnBarrier, 64 * 4);  // the turn nobody took
}

// 65,536 registers: 384 threads start with 168 each, 64,512; so do 256 x 224 + 128 x 56.
template <typename S>
__device__ void RunBlock(const PagedAttentionArgs& args, const S& shared) {
  ptx::AllowSuccessor();
  if (threadIdx.x == 0) shared.InitBarriers();
  __syncthreads();
  ptx::WaitForPredecessor();
  if (__shfl_sync(~0u, threadIdx.x / 128, 0) == kConsumers) {
    ptx::LowerRegisters<56>();
    Produce(args, shared);
  } else {
    ptx::RaiseRegisters<224>();
    Consume(args, shared);
  }
}

template <typename S>
__global__ __launch_bounds__(kThreads,
                             1) void PrefillWgmma(const __grid_constant__ PagedAttentionArgs args) {
  extern __shared__ __align__(1024) char memory[];
  if constexpr (ptx::kHasWgmma) RunBlock(args, S{ptx::SharedAddress(memory)});
}

}  // namespace

KernelError LaunchPrefillWgmma(const PrefillAttentionConfig& config, const PagedAttentionArgs& args,
                               const LaunchContext& context) {
  const LaunchShape shape = {.grid = dim3(config.blocks),
                             .block = dim3(kThreads),
                             .shared_bytes = static_cast<size_t>(config.shared_bytes)};
  const bool is_wide = args.shape.kv.head_dim == 128;
  if (args.shape.kv.type == KvType::kBf16) {
    return is_wide ? Launch(PrefillWgmma<PrefillShared<128, KvType::kBf16>>, shape, context, args)
                   : Launch(PrefillWgmma<PrefillShared<64, KvType::kBf16>>, shape, context, args);
  }
  return is_wide ? Launch(PrefillWgmma<PrefillShared<128, KvType::kE4m3>>, shape, context, args)
                 : Launch(PrefillWgmma<PrefillShared<64, KvType::kE4m3>>, shape, context, args);
}

}  // namespace behemoth::kernels
