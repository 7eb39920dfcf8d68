#include "worker/device/cuda/stream_timer.h"

#include <cuda_runtime.h>

namespace behemoth::worker::cuda {

StreamTimer::~StreamTimer() { Forget(); }

void StreamTimer::Start(CUstream_st* stream) {
  Piece& piece = pieces_.emplace_back();
  if (cudaEventCreate(&piece.begin) == cudaSuccess) cudaEventRecord(piece.begin, stream);
}

void StreamTimer::Stop(CUstream_st* stream) {
  Piece& piece = pieces_.back();
  if (cudaEventCreate(&piece.end) == cudaSuccess) cudaEventRecord(piece.end, stream);
}

absl::Duration StreamTimer::Total() {
  double milliseconds = 0;
  for (const Piece& piece : pieces_) {
    float elapsed = 0;
    if (piece.begin == nullptr || piece.end == nullptr) continue;
    if (cudaEventSynchronize(piece.end) != cudaSuccess) continue;
    if (cudaEventElapsedTime(&elapsed, piece.begin, piece.end) != cudaSuccess) continue;
    milliseconds += static_cast<double>(elapsed);
  }
  Forget();
  return absl::Milliseconds(milliseconds);
}

void StreamTimer::Forget() {
  for (const Piece& piece : pieces_) {
    if (piece.begin != nullptr) cudaEventDestroy(piece.begin);
    if (piece.end != nullptr) cudaEventDestroy(piece.end);
  }
  pieces_.clear();
}

}  // namespace behemoth::worker::cuda
