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

// The block's pieces, one block of keys after the other.
struct PieceWalk {
  PrefillPiece piece;
  int round = 0, block = 0;
  bool exists;

  __device__ explicit PieceWalk(const PagedAttentionArgs& args) {
    exists = FindPiece(args, 0, &piece);
  }
  __device__ bool is_last() const { return block + 1 == piece.blocks; }
  __device__ void Advance(const PagedAttentionArgs& args) {
    if (++block < piece.blocks) return;
    block = 0;
    exists = FindPiece(args, ++round, &piece);
  }
};

// What the ring holds, in the order in which the consumers use it: the keys of two blocks, then by
// turns values and keys, across the borders of pieces: K0, K1, V0, K2, V1, ...
struct RingEntry {
  PrefillPiece piece;
  int block;
  bool is_value;
};
class RingWalk {
 public:
  __device__ explicit RingWalk(const PagedAttentionArgs& args) : keys_(args), values_(keys_) {}

  __device__ bool Next(const PagedAttentionArgs& args, RingEntry* entry) {
    if (keys_.exists && ahead_ < 2) {
      *entry = {keys_.piece, keys_.block, false};
      keys_.Advance(args);
      ++ahead_;
      return true;
    }
    if (ahead_ == 0) return false;
    *entry = {values_.piece, values_.block, true};
    values_.Advance(args);
    --ahead_;
    return true;
  }

 private:
  PieceWalk keys_, values_;
  int ahead_ = 0;  // blocks of keys without their values
};

inline constexpr int kConvertBarrier = 3;

// One warp: the 64 packed rows of one warpgroup. Rows past the chunk's end repeat its last token's.
template <typename S>
__device__ void LoadQuery(const PagedAttentionArgs& args, const S& shared,
                          const PrefillPiece& piece, int round, int consumer) {
  constexpr int kVectors = 8 * S::kPanels, kRowsAtOnce = 32 / kVectors;
  const int lane = threadIdx.x % 32, slot = round & 1, group = args.shape.group();
  const int vector = lane % kVectors;
  int row = lane / kVectors;
  const int packed = piece.chunk.first_packed + 64 * consumer + row;
  int token = packed / group, head = packed % group;
  const bf16* heads =
      args.q +
      (static_cast<size_t>(piece.chunk.q_begin) * args.shape.q_heads + piece.kv_head * group) *
          (8 * kVectors) +
      vector * 8;
  ptx::BarrierWait(shared.QueryEmpty(slot, consumer), ((round >> 1) & 1) ^ 1);
  const uint32_t tile = shared.Query(slot, consumer);
#pragma unroll 4
  for (int i = 0; i < 64 / kRowsAtOnce; ++i) {
    const size_t at =
        static_cast<size_t>(min(token, piece.chunk.q_len - 1)) * args.shape.q_heads + head;
    ptx::CopyAsync16(tile + SwizzledTileOffset(16 * kVectors, row, 16 * vector),
                     heads + at * (8 * kVectors));
    row += kRowsAtOnce;
    for (head += kRowsAtOnce; head >= group; head -= group) ++token;
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

  __device__ TilePair(const PagedAttentionArgs& args, const RingEntry& entry) {
    const int32_t* table =
        args.block_table + static_cast<size_t>(entry.piece.chunk.row) * args.block_table_stride;
    const size_t head = static_cast<size_t>(entry.is_value ? args.shape.kv.kv_heads : 0) +
                        static_cast<size_t>(entry.piece.kv_head);
    const size_t block_bytes = KvBlockBytes(args.shape.kv);
    valid = entry.piece.chunk.kv_len - entry.block * kKeys;
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
__device__ void CopyBlocks(const PagedAttentionArgs& args, const S& shared) {
  RingCursor<S::kStages> cursor;
  uint32_t landed_parity = 0;
  RingWalk walk(args);
  for (RingEntry entry; walk.Next(args, &entry); cursor.Advance()) {
    const TilePair<S> pair(args, entry);
    const bool clears = entry.is_value && pair.valid < kKeys;
    const uint32_t slot = shared.Slot(cursor.stage);
    const uint32_t barrier = clears ? shared.Landed(0) : shared.Full(cursor.stage);
    ptx::BarrierWait(shared.Empty(cursor.stage), cursor.parity ^ 1);
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
      ptx::BarrierWait(barrier, landed_parity);
      landed_parity ^= 1;
      ClearRows<S>(slot, pair.valid);
      ArriveOnce(shared.Full(cursor.stage));
    }
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

// A landed pair of tiles -> a slot of the ring. 128 threads; kPartial: rows from `valid` on become
// zeros. A thread keeps its 16 columns and goes down the rows in even strides, so that its place in
// the permutation stays and addresses differ by constants. Eight lanes have four neighbouring
// vectors of rows r and r ^ 5: their reads (pieces of 128 bytes) and their writes (every other
// piece of 128 bytes) both touch eight different bank groups.
template <typename S, bool kPartial>
__device__ void ConvertSlot(uint32_t landing, uint32_t slot, bool is_value, int valid) {
  constexpr int kRowsAtOnce = 32 / S::kPanels;
  constexpr int kAhead = 4;
  constexpr int kStoredRowBytes = 64 * S::kPanels;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  const int panel = warp % S::kPanels, vector = lane % 4;
  const int row = warp / S::kPanels * 8 + (lane / 8 ^ (lane & 4 ? 5 : 0));
  const uint32_t from =
      landing + SwizzledTileOffset(kStoredRowBytes, row, 64 * panel + 16 * vector);
  const uint32_t to = slot + row * kPanelRowBytes + panel * (is_value ? 1 : 2) * kPanelBytes;
  const uint32_t low = to + ((2 * vector ^ (row & 7)) << 4);
  const uint32_t high = to + (((2 * vector + 1) ^ (row & 7)) << 4);
  const int second_tile = is_value ? S::kTileBytes : kPanelBytes;  // from the first, in the slot
#pragma unroll
  for (int batch = 0; batch < kKeys / kRowsAtOnce; batch += kAhead) {
    uint4 in[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      in[i] = ptx::LoadShared16(from + (batch + i) * kRowsAtOnce * kStoredRowBytes);
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int down = (batch + i) * kRowsAtOnce;
      if (kPartial && row + down >= valid) in[i] = make_uint4(0, 0, 0, 0);
      uint4 out[2];
      ConvertPiece(in[i], out);
      const int at = down / 64 * second_tile + down % 64 * kPanelRowBytes;
      StoreShared16(low + at, out[0]);
      StoreShared16(high + at, out[1]);
    }
  }
  ptx::FenceProxyAsync();
}

// Both tiles of an entry as stored into a landing place. One thread.
template <typename S>
__device__ void CopyToLanding(const PagedAttentionArgs& args, const S& shared,
                              const RingEntry& entry, int place) {
  const TilePair<S> pair(args, entry);
  ptx::BarrierExpectBytes(shared.Landed(place), pair.tiles() * S::kStoredTileBytes);
  for (int i = 0; i < pair.tiles(); ++i) {
    ptx::BulkCopy(shared.Landing(place) + i * S::kStoredTileBytes, pair.tile[i],
                  S::kStoredTileBytes, shared.Landed(place));
  }
}

// What conversion must know of an entry whose copy is under way; 0: there is none.
struct LandingNote {
  static constexpr int kBits = 10;
  uint32_t bits = 0;  // 0..7: rows that exist, 8: values, 9: the first keys of a piece

  __device__ int valid() const { return bits & 255; }
  __device__ bool is_value() const { return (bits >> 8 & 1) != 0; }
  __device__ bool starts_piece() const { return (bits >> 9 & 1) != 0; }
};

// Four warps, fp8: bulk copies into the landing places run ahead of the conversion.
template <typename S>
__device__ void ConvertBlocks(const PagedAttentionArgs& args, const S& shared) {
  constexpr int kAhead = S::kLandings - 1;
  static_assert(kAhead * LandingNote::kBits <= 32);
  const int warp = threadIdx.x / 32 - kConsumerWarps;
  RingWalk walk(args);
  RingCursor<S::kLandings> filling, landing;
  RingCursor<S::kStages> cursor;
  const auto copy_next = [&]() {
    RingEntry entry;
    if (!walk.Next(args, &entry)) return LandingNote{};
    if (threadIdx.x == 32 * kConsumerWarps) CopyToLanding(args, shared, entry, filling.stage);
    __syncwarp();
    filling.Advance();
    const uint32_t valid = min(entry.piece.chunk.kv_len - entry.block * kKeys, kKeys);
    const bool starts = !entry.is_value && entry.block == 0;
    return LandingNote{valid | (entry.is_value ? 256u : 0u) | (starts ? 512u : 0u)};
  };
  uint32_t notes = 0;  // of the kAhead entries under way, the oldest lowest
  for (int i = 0; i < kAhead; ++i) notes |= copy_next().bits << (i * LandingNote::kBits);
  int round = 0;
  while (notes != 0) {
    ptx::NamedBarrier(kConvertBarrier, 128);  // all have left the place that fills next
    const uint32_t next = copy_next().bits << (kAhead * LandingNote::kBits - LandingNote::kBits);
    const LandingNote note = {notes & ((1u << LandingNote::kBits) - 1)};
    notes = notes >> LandingNote::kBits | next;
    if (note.starts_piece()) {
      PrefillPiece piece;
      FindPiece(args, round, &piece);
      if (warp >= 2) LoadQuery(args, shared, piece, round, warp - 2);
      ++round;
    }
    ptx::BarrierWait(shared.Landed(landing.stage), landing.parity);
    ptx::BarrierWait(shared.Empty(cursor.stage), cursor.parity ^ 1);
    const uint32_t from = shared.Landing(landing.stage), slot = shared.Slot(cursor.stage);
    if (note.valid() == kKeys) {
      ConvertSlot<S, false>(from, slot, note.is_value(), kKeys);
    } else {
      ConvertSlot<S, true>(from, slot, note.is_value(), note.valid());
    }
    ArriveOnce(shared.Full(cursor.stage));
    landing.Advance();
    cursor.Advance();
  }
}

template <typename S>
__device__ void Produce(const PagedAttentionArgs& args, const S& shared) {
  const int warp = threadIdx.x / 32 - kConsumerWarps;
  if constexpr (S::kConverts) {
    ConvertBlocks(args, shared);
  } else if (warp == 0) {
    CopyBlocks(args, shared);
  } else if (warp >= 2) {
    PrefillPiece piece;
    for (int round = 0; FindPiece(args, round, &piece); ++round) {
      LoadQuery(args, shared, piece, round, warp - 2);
    }
  }
}

}  // namespace behemoth::kernels
