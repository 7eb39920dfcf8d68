// Shared memory of the Hopper prefill kernel, the pieces of work it walks over, and its producer
// warpgroup: who brings Q, K and V to where the consumers in prefill_wgmma.cu read them.
#pragma once

#include "kernels/common/ptx.cuh"
#include "kernels/paged_attention/device_math.cuh"
#include "kernels/paged_attention/prefill_chunk.cuh"
#include "kernels/paged_attention/prefill_kernels.h"
#include "kernels/paged_attention/tile_pipe.cuh"

namespace behemoth::kernels {

inline constexpr int kKeys = 128;     // of a block of keys: two tiles of the pool
inline constexpr int kConsumers = 2;  // warpgroups
inline constexpr int kConsumerWarps = 4 * kConsumers;
static_assert(kPrefillRows == 64 * kConsumers);

// Shared memory, from its start: two slots of Q for each warpgroup, the ring, fp8's landing place,
// barriers. "Tile": 64 rows in bf16, panels of kv_layout.h.
template <int kHeadDim, KvType kType>
struct PrefillShared {
  static constexpr bool kConverts = kType == KvType::kE4m3;
  static constexpr int kPanels = kHeadDim / 64;
  static constexpr int kTileBytes = kPanels * kPanelBytes;
  static constexpr int kSlotBytes = 2 * kTileBytes;
  static constexpr int kStoredTileBytes = KvTileBytes({1, kHeadDim, kType});
  static constexpr int kStages = PrefillWgmmaStages(kType);
  static constexpr int kRing = 2 * kConsumers * kTileBytes;
  static constexpr int kLanding = kRing + kStages * kSlotBytes;
  static constexpr int kLandings = kPrefillLandings;
  static constexpr int kBarriers = kLanding + (kConverts ? 2 * kLandings * kStoredTileBytes : 0);
  static_assert(kBarriers + 8 * (2 * kStages + 8 + kLandings) <=
                PrefillWgmmaBytes({1, kHeadDim, kType}));

  uint32_t base;

  __device__ uint32_t Query(int slot, int consumer) const {
    return base + (2 * slot + consumer) * kTileBytes;
  }
  __device__ uint32_t Slot(int stage) const { return base + kRing + stage * kSlotBytes; }
  __device__ uint32_t Landing(int place) const {
    return base + kLanding + place * 2 * kStoredTileBytes;
  }
  __device__ uint32_t Full(int stage) const { return base + kBarriers + 8 * stage; }
  __device__ uint32_t Empty(int stage) const { return Full(kStages + stage); }
  __device__ uint32_t QueryFull(int slot, int consumer) const {
    return Full(2 * kStages + 2 * slot + consumer);
  }
  __device__ uint32_t QueryEmpty(int slot, int consumer) const {
    return Full(2 * kStages + 4 + 2 * slot + consumer);
  }
  __device__ uint32_t Landed(int place) const { return Full(2 * kStages + 8 + place); }

  __device__ void InitBarriers() const {
    for (int stage = 0; stage < kStages; ++stage) {
      ptx::BarrierInit(Full(stage), kConverts ? 4 : 1);
      ptx::BarrierInit(Empty(stage), kConsumerWarps);
    }
    for (int i = 0; i < 4; ++i) {
      ptx::BarrierInit(QueryFull(i / 2, i % 2), 1);
      ptx::BarrierInit(QueryEmpty(i / 2, i % 2), 4);
    }
    for (int place = 0; place < kLandings; ++place) ptx::BarrierInit(Landed(place), 1);
    ptx::FenceBarrierInit();
  }
};

template <int kStages>
struct RingCursor {
  int stage = 0;
  uint32_t parity = 0;
  __device__ void Advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// One warp's last shared-memory access of its kind is behind it.
__device__ inline void ArriveOnce(uint32_t barrier) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) ptx::BarrierArrive(barrier);
}

struct PrefillPiece {
  PrefillChunk chunk;
  int kv_head;
  int blocks;  // of keys
};

// The `round`-th piece of this block. Rounds run back and forth over the blocks, so that none gets
// the longest of each.
__device__ inline bool FindPiece(const PagedAttentionArgs& args, int round, PrefillPiece* piece) {
  const int place = round % 2 == 0 ? blockIdx.x : gridDim.x - 1 - blockIdx.x;
  const int index = round * gridDim.x + place;
  piece->chunk = FindChunk(args, index / args.shape.kv.kv_heads);
  if (piece->chunk.row < 0) return false;
  piece->kv_head = index % args.shape.kv.kv_heads;
  const int keys = max(1, piece->chunk.Longest(args.shape.group()));
  piece->blocks = (keys + kKeys - 1) / kKeys;
  return true;
}

inline constexpr int kConvertBarrier = 3;

// The `at`-th of the 2 n entries K0, K1, V0, K2, V1, ..., K(n-1), V(n-2), V(n-1).
struct RingEntry {
  bool is_value;
  int block;
  __device__ RingEntry(int at, int blocks) {
    const bool is_last = at == 2 * blocks - 1;
    is_value = is_last || (at > 0 && at % 2 == 0);
    block = is_last ? blocks - 1 : is_value ? at / 2 - 1 : (at + 1) / 2;
  }
};

// One warp: the 64 packed rows of one warpgroup.
template <typename S>
__device__ void LoadQuery(const PagedAttentionArgs& args, const S& shared,
                          const PrefillPiece& piece, int round, int consumer) {
  constexpr int kVectors = 8 * S::kPanels;
  const int lane = threadIdx.x % 32, slot = round & 1, group = args.shape.group();
  WaitPhase(shared.QueryEmpty(slot, consumer), ((round >> 1) & 1) ^ 1);
  const uint32_t tile = shared.Query(slot, consumer);
#pragma unroll 4
  for (int i = lane; i < 64 * kVectors; i += 32) {
    const int row = i / kVectors, vector = i % kVectors;
    const int packed = piece.chunk.first_packed + 64 * consumer + row;
    const int token = min(packed / group, piece.chunk.q_len - 1);
    const int head = piece.kv_head * group + packed % group;
    const size_t at = static_cast<size_t>(piece.chunk.q_begin + token) * args.shape.q_heads + head;
    ptx::CopyAsync16(tile + SwizzledTileOffset(16 * kVectors, row, 16 * vector),
                     args.q + at * (8 * kVectors) + vector * 8);
  }
  ptx::CopyAsyncCommit();
  ptx::CopyAsyncWait<0>();
  ptx::FenceProxyAsync();
  ArriveOnce(shared.QueryFull(slot, consumer));
}

// Where the two tiles of an entry lie in the pool.
template <typename S>
struct TilePair {
  const char* tile[2];
  int valid;  // tokens of the block that the sequence has

  __device__ TilePair(const PagedAttentionArgs& args, const PrefillPiece& piece,
                      const RingEntry& entry) {
    const int32_t* table =
        args.block_table + static_cast<size_t>(piece.chunk.row) * args.block_table_stride;
    const size_t head = static_cast<size_t>(entry.is_value ? args.shape.kv.kv_heads : 0) +
                        static_cast<size_t>(piece.kv_head);
    const size_t block_bytes = KvBlockBytes(args.shape.kv);
    valid = piece.chunk.kv_len - entry.block * kKeys;
    for (int i = 0; i < 2; ++i) {
      const int block = valid > 64 * i ? table[2 * entry.block + i] : 0;
      tile[i] =
          static_cast<const char*>(args.kv) + block * block_bytes + head * S::kStoredTileBytes;
    }
  }
  __device__ int tiles() const { return valid > 64 ? 2 : 1; }
};

// V rows that the sequence does not have may hold NaN, and 0 * NaN is not 0.
template <typename S>
__device__ void ClearRows(uint32_t slot, int first) {
  const int lane = threadIdx.x % 32;
  for (int row = first + lane / 8; row < kKeys; row += 4) {
#pragma unroll
    for (int panel = 0; panel < S::kPanels; ++panel) {
      const uint32_t at = slot + row / 64 * S::kTileBytes + panel * kPanelBytes + row % 64 * 128;
      asm volatile("st.shared.v4.u32 [%0], {%1, %1, %1, %1};" ::"r"(at + lane % 8 * 16), "r"(0)
                   : "memory");
    }
  }
  ptx::FenceProxyAsync();
}

// One warp, bf16: bulk copies straight into the ring. K's panels of both tiles lie one behind the
// other, as one product takes all 128 keys; V's tiles stay whole.
template <typename S>
__device__ void CopyBlocks(const PagedAttentionArgs& args, const S& shared,
                           const PrefillPiece& piece, RingCursor<S::kStages>* cursor,
                           uint32_t* landed_parity) {
  for (int at = 0; at < 2 * piece.blocks; ++at) {
    const RingEntry entry(at, piece.blocks);
    const TilePair<S> pair(args, piece, entry);
    const bool clears = entry.is_value && pair.valid < kKeys;
    const uint32_t slot = shared.Slot(cursor->stage);
    const uint32_t barrier = clears ? shared.Landed(0) : shared.Full(cursor->stage);
    WaitPhase(shared.Empty(cursor->stage), cursor->parity ^ 1);
    if (threadIdx.x % 32 == 0) {
      ptx::BarrierExpectBytes(barrier, pair.tiles() * S::kTileBytes);
      for (int i = 0; i < pair.tiles(); ++i) {
        if (entry.is_value) {
          ptx::BulkCopy(slot + i * S::kTileBytes, pair.tile[i], S::kTileBytes, barrier);
          continue;
        }
        for (int panel = 0; panel < S::kPanels; ++panel) {
          ptx::BulkCopy(slot + (2 * panel + i) * kPanelBytes, pair.tile[i] + panel * kPanelBytes,
                        kPanelBytes, barrier);
        }
      }
    }
    __syncwarp();
    if (clears) {
      WaitPhase(barrier, *landed_parity);
      *landed_parity ^= 1;
      ClearRows<S>(slot, pair.valid);
      ArriveOnce(shared.Full(cursor->stage));
    }
    cursor->Advance();
  }
}

// 16 e4m3 values -> two pieces of bf16.
__device__ inline void ConvertPiece(const uint4& in, uint4 (&out)[2]) {
  out[0] = make_uint4(E4m3BytesToBf16<0, 1>(in.x), E4m3BytesToBf16<2, 3>(in.x),
                      E4m3BytesToBf16<0, 1>(in.y), E4m3BytesToBf16<2, 3>(in.y));
  out[1] = make_uint4(E4m3BytesToBf16<0, 1>(in.z), E4m3BytesToBf16<2, 3>(in.z),
                      E4m3BytesToBf16<0, 1>(in.w), E4m3BytesToBf16<2, 3>(in.w));
}

__device__ inline void StoreShared16(uint32_t shared, const uint4& v) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(shared), "r"(v.x), "r"(v.y),
               "r"(v.z), "r"(v.w)
               : "memory");
}

// A landed pair of tiles -> a slot of the ring. 128 threads.
template <typename S>
__device__ void ConvertSlot(uint32_t landing, uint32_t slot, bool is_value, int valid) {
  constexpr int kVectors = 4 * S::kPanels;  // 16 bytes of fp8 each
#pragma unroll 4
  for (int i = threadIdx.x % 128; i < kKeys * kVectors; i += 128) {
    const int row = i / kVectors, vector = i % kVectors, panel = vector / 4;
    uint4 in = make_uint4(0, 0, 0, 0);
    if (row < valid) {
      in = ptx::LoadShared16(landing + row / 64 * S::kStoredTileBytes +
                             SwizzledTileOffset(16 * kVectors, row % 64, 16 * vector));
    }
    uint4 out[2];
    ConvertPiece(in, out);
    const uint32_t panel_at = is_value ? row / 64 * S::kTileBytes + panel * kPanelBytes
                                       : (2 * panel + row / 64) * kPanelBytes;
    const uint32_t at = slot + panel_at + row % 64 * 128;
    const int piece = vector % 4 * 2, order = panel & 1;  // the two panels' lanes take turns
    StoreShared16(at + (((piece + order) ^ (row & 7)) << 4), order == 0 ? out[0] : out[1]);
    StoreShared16(at + (((piece + 1 - order) ^ (row & 7)) << 4), order == 0 ? out[1] : out[0]);
  }
  ptx::FenceProxyAsync();
}

// Both tiles of an entry as stored into a landing place. One thread.
template <typename S>
__device__ void CopyToLanding(const PagedAttentionArgs& args, const S& shared,
                              const PrefillPiece& piece, int at) {
  const TilePair<S> pair(args, piece, RingEntry(at, piece.blocks));
  const int place = at % S::kLandings;
  ptx::BarrierExpectBytes(shared.Landed(place), pair.tiles() * S::kStoredTileBytes);
  for (int i = 0; i < pair.tiles(); ++i) {
    ptx::BulkCopy(shared.Landing(place) + i * S::kStoredTileBytes, pair.tile[i],
                  S::kStoredTileBytes, shared.Landed(place));
  }
}

// Four warps, fp8: bulk copies into the landing places run ahead of the conversion.
template <typename S>
__device__ void ConvertBlocks(const PagedAttentionArgs& args, const S& shared,
                              const PrefillPiece& piece, RingCursor<S::kStages>* cursor,
                              uint32_t* landed_parity) {
  constexpr int kAhead = S::kLandings - 1;
  const int entries = 2 * piece.blocks;
  const bool copies = threadIdx.x == 32 * kConsumerWarps;
  for (int at = -kAhead; at < entries; ++at) {
    // All have left the place that fills next.
    if (at >= 0 || at == -kAhead) ptx::NamedBarrier(kConvertBarrier, 128);
    if (copies && at + kAhead < entries) CopyToLanding(args, shared, piece, at + kAhead);
    __syncwarp();
    if (at < 0) continue;
    const int place = at % S::kLandings;
    const RingEntry entry(at, piece.blocks);
    const int valid = piece.chunk.kv_len - entry.block * kKeys;
    WaitPhase(shared.Landed(place), (*landed_parity >> place) & 1);
    *landed_parity ^= 1u << place;
    WaitPhase(shared.Empty(cursor->stage), cursor->parity ^ 1);
    ConvertSlot<S>(shared.Landing(place), shared.Slot(cursor->stage), entry.is_value, valid);
    ArriveOnce(shared.Full(cursor->stage));
    cursor->Advance();
  }
}

template <typename S>
__device__ void Produce(const PagedAttentionArgs& args, const S& shared) {
  const int warp = threadIdx.x / 32 - kConsumerWarps;
  RingCursor<S::kStages> cursor;
  uint32_t landed_parity = 0;
  PrefillPiece piece;
  for (int round = 0; FindPiece(args, round, &piece); ++round) {
    if (warp >= 2) LoadQuery(args, shared, piece, round, warp - 2);
    if constexpr (S::kConverts) {
      ConvertBlocks(args, shared, piece, &cursor, &landed_parity);
    } else if (warp == 0) {
      CopyBlocks(args, shared, piece, &cursor, &landed_parity);
    }
  }
}

}  // namespace behemoth::kernels
