// A row of words spread over a block of 1,024 threads, and the block's reductions.
#pragma once

#include "kernels/common/launch.cuh"
#include "kernels/sampling/sampling.h"

namespace behemoth::kernels::rows {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;
constexpr int kSweepIds = 4 * kThreads;
constexpr int kHeldSweeps = kHeldVocabulary / kSweepIds;
constexpr int kMaxSweeps = kMaxVocabulary / kSweepIds;
static_assert(kHeldVocabulary % kSweepIds == 0 && kMaxVocabulary % kSweepIds == 0);

struct Sum {
  uint64_t mass = 0;
  uint32_t count = 0;
};

struct SharedState {
  uint64_t warp_mass[2][kWarps];
  uint32_t warp_count[2][kWarps];
  uint64_t warp_key[2][kWarps];
  uint64_t segment[kMaxSweeps * kWarps];  // mass of 128 consecutive ids
  uint32_t candidates[kThreads];
  uint32_t candidate_count;
  uint32_t chosen_segment;
  uint64_t chosen_rest;
  int32_t token;
};

// Sums over a warp by halves that cannot overflow 32 bits: up to 64 sweeps of 4 masses of 2^31.
__device__ inline uint64_t WarpSum(uint64_t mass) {
  const uint32_t low = __reduce_add_sync(~0u, static_cast<uint32_t>(mass & 0xffffu));
  const uint32_t high = __reduce_add_sync(~0u, static_cast<uint32_t>(mass >> 16));
  return (static_cast<uint64_t>(high) << 16) + low;
}

// Block reductions; every thread gets the result. Two sets of slots take turns, so that one barrier
// a call is enough.
class Reducer {
 public:
  __device__ explicit Reducer(SharedState* shared) : shared_(shared) {}

  __device__ Sum Add(Sum of_thread) {
    turn_ ^= 1;
    const int warp = threadIdx.x / 32, lane = threadIdx.x & 31;
    const uint64_t mass = WarpSum(of_thread.mass);
    const uint32_t count = __reduce_add_sync(~0u, of_thread.count);
    if (lane == 0) {
      shared_->warp_mass[turn_][warp] = mass;
      shared_->warp_count[turn_][warp] = count;
    }
    __syncthreads();
    uint64_t all = shared_->warp_mass[turn_][lane];
    for (int distance = 16; distance > 0; distance /= 2) {
      all += __shfl_xor_sync(~0u, all, distance);
    }
    return {all, __reduce_add_sync(~0u, shared_->warp_count[turn_][lane])};
  }

  // The largest key.
  __device__ uint64_t Max(uint64_t key) {
    turn_ ^= 1;
    const int warp = threadIdx.x / 32, lane = threadIdx.x & 31;
    for (int distance = 16; distance > 0; distance /= 2) {
      key = max(key, __shfl_xor_sync(~0u, key, distance));
    }
    if (lane == 0) shared_->warp_key[turn_][warp] = key;
    __syncthreads();
    key = shared_->warp_key[turn_][lane];
    for (int distance = 16; distance > 0; distance /= 2) {
      key = max(key, __shfl_xor_sync(~0u, key, distance));
    }
    return key;
  }

  // Of any size: sums of squares, not of masses.
  __device__ uint64_t AddWide(uint64_t value) {
    turn_ ^= 1;
    const int warp = threadIdx.x / 32, lane = threadIdx.x & 31;
    for (int distance = 16; distance > 0; distance /= 2) {
      value += __shfl_xor_sync(~0u, value, distance);
    }
    if (lane == 0) shared_->warp_key[turn_][warp] = value;
    __syncthreads();
    value = shared_->warp_key[turn_][lane];
    for (int distance = 16; distance > 0; distance /= 2) {
      value += __shfl_xor_sync(~0u, value, distance);
    }
    return value;
  }

  // Sum in a fixed order.
  __device__ float AddFloat(float value) {
    turn_ ^= 1;
    const int warp = threadIdx.x / 32, lane = threadIdx.x & 31;
    for (int distance = 16; distance > 0; distance /= 2) {
      value += __shfl_xor_sync(~0u, value, distance);
    }
    if (lane == 0) shared_->warp_count[turn_][warp] = __float_as_uint(value);
    __syncthreads();
    value = __uint_as_float(shared_->warp_count[turn_][lane]);
    for (int distance = 16; distance > 0; distance /= 2) {
      value += __shfl_xor_sync(~0u, value, distance);
    }
    return value;
  }

 private:
  SharedState* shared_;
  int turn_ = 0;
};

// Order-preserving key of (value, id): larger value first, then smaller id. Values are never NaN.
__device__ inline uint64_t KeyOf(float value, int id) {
  const uint32_t bits = __float_as_uint(value == 0.0f ? 0.0f : value);  // -0 ties with +0
  const uint32_t ordered = bits ^ ((bits >> 31) != 0 ? 0xffffffffu : 0x80000000u);
  return (static_cast<uint64_t>(ordered) << 32) | (0xffffffffu - static_cast<uint32_t>(id));
}
__device__ inline float ValueOfKey(uint64_t key) {
  const uint32_t ordered = static_cast<uint32_t>(key >> 32);
  return __uint_as_float(ordered ^ ((ordered >> 31) != 0 ? 0x80000000u : 0xffffffffu));
}
__device__ inline int IdOfKey(uint64_t key) {
  return static_cast<int>(0xffffffffu - static_cast<uint32_t>(key));
}

// A row's words: thread t's word e of sweep j belongs to id 4 (1024 j + t) + e.
template <bool kHeld>
class RowWords {
 public:
  __device__ RowWords(uint32_t* scratch, int sweeps) : sweeps_(sweeps) {
    if constexpr (!kHeld) scratch_ = reinterpret_cast<uint4*>(scratch) + threadIdx.x;
  }
  __device__ int sweeps() const { return sweeps_; }

  // visit(sweep, word[4])
  template <typename Visit>
  __device__ void ForEach(Visit visit) const {
    if constexpr (kHeld) {
#pragma unroll
      for (int j = 0; j < kHeldSweeps; ++j) {
        if (j < sweeps_) visit(j, held_[j]);
      }
    } else {
      for (int j = 0; j < sweeps_; ++j) visit(j, scratch_[j * kThreads]);
    }
  }
  // word = change(sweep, word)
  template <typename Change>
  __device__ void Transform(Change change) {
    if constexpr (kHeld) {
#pragma unroll
      for (int j = 0; j < kHeldSweeps; ++j) {
        if (j < sweeps_) held_[j] = change(j, held_[j]);
      }
    } else {
      for (int j = 0; j < sweeps_; ++j) scratch_[j * kThreads] = change(j, scratch_[j * kThreads]);
    }
  }
  __device__ uint4 Sweep(int wanted) const {
    uint4 found = make_uint4(0, 0, 0, 0);
    if constexpr (kHeld) {
#pragma unroll
      for (int j = 0; j < kHeldSweeps; ++j) {
        if (j == wanted) found = held_[j];
      }
    } else {
      found = scratch_[wanted * kThreads];
    }
    return found;
  }

 private:
  uint4 held_[kHeld ? kHeldSweeps : 1];
  uint4* scratch_ = nullptr;
  int sweeps_;
};

__device__ inline uint32_t& Word(uint4& v, int e) { return reinterpret_cast<uint32_t*>(&v)[e]; }
__device__ inline uint32_t Word(const uint4& v, int e) {
  return reinterpret_cast<const uint32_t*>(&v)[e];
}
__device__ inline int FirstId(int sweep) {
  return 4 * (sweep * kThreads + static_cast<int>(threadIdx.x));
}

}  // namespace behemoth::kernels::rows
