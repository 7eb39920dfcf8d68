// A ring of KV tiles in shared memory: one producer warp copies, consumer warps read.
// Two barriers a stage: "full" (the tile has landed) and "empty" (all consumers are done with it).
// sm_90 and newer: one bulk copy a tile. Below: cp.async by 32 lanes on the same barriers, so that
// the kernels above have one structure.
#pragma once

#include "kernels/common/ptx.cuh"

namespace behemoth::kernels {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
inline constexpr uint32_t kFullArrivals = 32;
#else
inline constexpr uint32_t kFullArrivals = 1;
#endif

// kOnce: nobody reads the tile again in this step, so it should not drive out of L2 what is read
// again.
enum class TileReuse { kOnce, kAgain };

// Called by all lanes of the producer warp. `full` completes once the tile has landed.
template <TileReuse kReuse>
__device__ inline void CopyTile(uint32_t shared, const void* global, uint32_t bytes,
                                uint32_t full) {
  const uint32_t lane = threadIdx.x & 31;
#if __CUDA_ARCH__ >= 900
  if (lane == 0) {
    ptx::BarrierExpectBytes(full, bytes);
    if constexpr (kReuse == TileReuse::kOnce) {
      ptx::BulkCopyHinted(shared, global, bytes, full, ptx::EvictFirstPolicy());
    } else {
      ptx::BulkCopy(shared, global, bytes, full);
    }
  }
#else
  const char* source = static_cast<const char*>(global);
  for (uint32_t at = lane * 16; at < bytes; at += 512) ptx::CopyAsync16(shared + at, source + at);
  ptx::CopyAsyncArrive(full);
#endif
}

// One thread's place in the ring; producer and consumers each keep their own and visit the stages
// in the same order.
struct TilePipe {
  uint32_t tiles;     // shared address of stage 0
  uint32_t barriers;  // full of stage 0; 8 bytes each, the empties behind the fulls
  uint32_t tile_bytes;
  uint32_t stages;
  uint32_t stage = 0;
  uint32_t parity = 0;

  // One thread, before a block barrier.
  __device__ void Init(uint32_t consumer_warps) const {
    for (uint32_t i = 0; i < stages; ++i) {
      ptx::BarrierInit(barriers + 8 * i, kFullArrivals);
      ptx::BarrierInit(barriers + 8 * (stages + i), 32 * consumer_warps);
    }
    ptx::FenceBarrierInit();
  }
  __device__ uint32_t tile() const { return tiles + stage * tile_bytes; }
  __device__ uint32_t full() const { return barriers + 8 * stage; }
  __device__ uint32_t empty() const { return barriers + 8 * (stages + stage); }
  __device__ void Advance() {
    if (++stage == stages) {
      stage = 0;
      parity ^= 1;
    }
  }

  // Producer warp.
  __device__ void Push(const void* global) {
    ptx::BarrierWait(empty(), parity ^ 1);
    CopyTile<TileReuse::kOnce>(tile(), global, tile_bytes, full());
    Advance();
  }
  // Consumer warp: waits for the next tile; after the last read of it, Release. Every lane arrives
  // for its own reads: that costs nothing measurable, and compute-sanitizer's racecheck can follow
  // it (one lane's arrival after __syncwarp it cannot).
  __device__ uint32_t Await() const {
    ptx::BarrierWait(full(), parity);
    return tile();
  }
  __device__ void Release() {
    ptx::BarrierArrive(empty());
    Advance();
  }
};

}  // namespace behemoth::kernels
