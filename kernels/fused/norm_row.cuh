// RMSNorm of one row by one block of kNormThreads threads: what the norms with different additions
// to the residual share.
#pragma once

#include "kernels/common/ptx.cuh"
#include "kernels/fused/fused.h"
#include "kernels/fused/vector8.cuh"

namespace behemoth::kernels {

inline constexpr int kNormThreads = 512;
// Pieces of 8 columns that a thread keeps in registers: rows up to 16,384.
inline constexpr int kHeldPieces = 4;

// Sum over the block in a fixed order: lanes by halving, then warps ascending.
__device__ inline float BlockSum(float value) {
  __shared__ float of_warp[kNormThreads / 32];
  for (int distance = 16; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(~0u, value, distance);
  }
  if ((threadIdx.x & 31) == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0.0f;
#pragma unroll
  for (int warp = 0; warp < kNormThreads / 32; ++warp) sum += of_warp[warp];
  return sum;
}

__device__ inline float SumOfSquares(const Vector8& x) {
  float sum = 0.0f;
#pragma unroll
  for (int e = 0; e < 8; ++e) sum = fmaf(x.v[e], x.v[e], sum);
  return sum;
}

__device__ inline uint4 Normalise(const Vector8& x, float factor, uint4 gamma) {
  const Vector8 g = Unpack(gamma);
  Vector8 y;
#pragma unroll
  for (int e = 0; e < 8; ++e) y.v[e] = g.v[e] * RoundBf16(x.v[e] * factor);
  return Pack(y);
}

// A piece of the residual, and what is to be added to it.
struct Addition {
  Vector8 delta;
  uint4 residual;
};

// bf16(residual + delta) of piece `at` of the matrix, stored.
__device__ inline Vector8 AddToResidual(const RmsNormArgs& args, size_t at, const Addition& a) {
  Vector8 x = Unpack(a.residual);
#pragma unroll
  for (int e = 0; e < 8; ++e) x.v[e] = RoundBf16(x.v[e] + a.delta.v[e]);
  reinterpret_cast<uint4*>(args.residual)[at] = Pack(x);
  return x;
}

// wait(): until the row's inputs are there. fetch(at): what is needed for the residual's piece
// `at`; a fetch that stores nothing is under way for all pieces of a thread at once. finish(at,
// fetched): the piece, with what is added to it stored. Each is called once for a piece.
template <typename Wait, typename Fetch, typename Finish>
__device__ void NormRow(const RmsNormArgs& args, Wait wait, Fetch fetch, Finish finish) {
  const int row = blockIdx.x, pieces = args.hidden / 8;
  const uint4* gamma = reinterpret_cast<const uint4*>(args.gamma);
  uint4 g[kHeldPieces];
#pragma unroll
  for (int i = 0; i < kHeldPieces; ++i) {
    const int piece = threadIdx.x + i * kNormThreads;
    if (piece < pieces) g[i] = gamma[piece];
  }
  wait();
  const size_t first = static_cast<size_t>(row) * pieces;
  decltype(fetch(first)) fetched[kHeldPieces];
#pragma unroll
  for (int i = 0; i < kHeldPieces; ++i) {
    const int piece = threadIdx.x + i * kNormThreads;
    if (piece < pieces) fetched[i] = fetch(first + piece);
  }
  Vector8 x[kHeldPieces];
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kHeldPieces; ++i) {
    const int piece = threadIdx.x + i * kNormThreads;
    if (piece < pieces) {
      x[i] = finish(first + piece, fetched[i]);
      sum += SumOfSquares(x[i]);
    }
  }
  for (int piece = threadIdx.x + kHeldPieces * kNormThreads; piece < pieces;
       piece += kNormThreads) {
    sum += SumOfSquares(finish(first + piece, fetch(first + piece)));
  }
  const float factor = rsqrtf(BlockSum(sum) / static_cast<float>(args.hidden) + args.epsilon);
#pragma unroll
  for (int i = 0; i < kHeldPieces; ++i) {
    const int piece = threadIdx.x + i * kNormThreads;
    if (piece < pieces) Store(args.out, row, piece, pieces, Normalise(x[i], factor, g[i]));
  }
  for (int piece = threadIdx.x + kHeldPieces * kNormThreads; piece < pieces;
       piece += kNormThreads) {
    const Vector8 again = Unpack(reinterpret_cast<const uint4*>(args.residual)[first + piece]);
    Store(args.out, row, piece, pieces, Normalise(again, factor, gamma[piece]));
  }
}

}  // namespace behemoth::kernels
