// What a backend does where ranks share a product: the residual's sums and the logits.
#include <utility>

#include "kernels/all_reduce/all_reduce.h"
#include "worker/device/cuda/cuda_backend.h"
#include "worker/device/cuda/cuda_status.h"

namespace behemoth::worker::cuda {

using kernels::bf16;
using kernels::GemmEpilogue;
using kernels::GemmOutput;

void CudaBackend::LinearAddOverRanks(Tensor x, LinearHandle weight, Tensor residual) {
  AddPending(residual);
  partial_ = 1 - partial_;
  Tensor partial = residual;
  partial.data = work_.partials[partial_];
  Multiply(x, weight, partial, GemmEpilogue::kStore, GemmOutput::kRowMajor);
  pending_sum_ = true;
  if (spec_.group->peers() != nullptr) return;
  const size_t count = static_cast<size_t>(residual.rows) * static_cast<size_t>(residual.cols);
  DoOverRanks(spec_.group->AllReduce(partial.data, count, SumElement::kBfloat16, stream_));
}

void CudaBackend::DoOverRanks(const absl::Status& status) {
  status_.Update(status);
  launches_ = 0;
}

void CudaBackend::AddPending(Tensor residual) {
  if (!std::exchange(pending_sum_, false)) return;
  if (spec_.group->peers() != nullptr) {
    return SumOverPeers({.residual = static_cast<bf16*>(residual.data),
                         .rows = residual.rows,
                         .hidden = residual.cols});
  }
  Do(kernels::LaunchAddRows({.residual = static_cast<bf16*>(residual.data),
                             .delta = work_.partials[partial_],
                             .rows = residual.rows,
                             .hidden = residual.cols},
                            Next()));
}

void CudaBackend::SumOverPeers(const kernels::RmsNormArgs& row) {
  const PeerTable& peers = *spec_.group->peers();
  kernels::RankSumArgs args;
  args.rank = spec_.group->rank();
  args.ranks = spec_.group->size();
  args.aborted = peers.aborted;
  args.row = row;
  for (size_t rank = 0; rank < static_cast<size_t>(args.ranks); ++rank) {
    args.parts[rank] = static_cast<const bf16*>(peers.ranks[rank].parts[partial_]);
    args.flags[rank] = peers.ranks[rank].flags;
  }
  Do(kernels::LaunchRankSum(args, Next()));
}

// [ranks][rows, cols] -> [rows, ranks * cols].
void CudaBackend::GatherLogits(Tensor out) {
  const size_t cols = static_cast<size_t>(out.cols / spec_.group->size());
  const size_t rows = static_cast<size_t>(out.rows);
  const size_t width = cols * sizeof(float);
  const size_t stride = static_cast<size_t>((out.cols + 7) / 8 * 8) * sizeof(float);
  DoOverRanks(spec_.group->AllGather(work_.logits_part, rows * width, work_.logits_parts, stream_));
  for (size_t rank = 0; rank < static_cast<size_t>(spec_.group->size()); ++rank) {
    status_.Update(FromCuda(cudaMemcpy2DAsync(static_cast<float*>(out.data) + rank * cols, stride,
                                              work_.logits_parts + rank * rows * cols, width, width,
                                              rows, cudaMemcpyDeviceToDevice, stream_),
                            "logits of the ranks"));
  }
}

}  // namespace behemoth::worker::cuda
