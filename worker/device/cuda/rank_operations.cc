// What a backend does where ranks share a product: the residual's sums, the logits, the table.
#include <utility>

#include "worker/device/cuda/cuda_backend.h"
#include "worker/device/cuda/cuda_status.h"

namespace behemoth::worker::cuda {

using kernels::bf16;
using kernels::GemmEpilogue;
using kernels::GemmOutput;

// ---- What peers see -----------------------------------------------------------------------------

PeerTable::Rank& CudaBackend::MyLine() const {
  return spec_.group->peers()->ranks[static_cast<size_t>(spec_.group->rank())];
}

void CudaBackend::ShowToPeers() {
  MyLine() = {.parts = {work_.partials[0], work_.partials[1]},
              .logits_parts = {work_.logits_parts[0], work_.logits_parts[1]},
              .flags = work_.rank_flags};
}

DenseMatrix CudaBackend::PartOfTable(DenseMatrix table) const {
  const auto rows = static_cast<size_t>(table.rows / spec_.group->size());
  const size_t bytes = rows * static_cast<size_t>(table.cols) * BytesPerElement(table.type);
  const uint64_t first = static_cast<uint64_t>(spec_.group->rank()) * bytes;
  table.bytes = Stored<uint8_t>(table.bytes.bytes().Range(first, bytes));
  table.rows = static_cast<int32_t>(rows);
  return table;
}

// The table never changes: a row is read from whoever has it.
void CudaBackend::SpreadOverPeers(int32_t rows, kernels::EmbeddingArgs* args) const {
  const PeerTable& peers = *spec_.group->peers();
  args->spread_rows = rows / spec_.group->size();
  for (size_t rank = 0; rank < static_cast<size_t>(spec_.group->size()); ++rank) {
    args->spread[rank] = static_cast<const bf16*>(peers.ranks[rank].table);
  }
}

kernels::RankMeeting CudaBackend::NextMeeting() {
  status_.Update(spec_.group->AnnounceOnPeers());
  const PeerTable& peers = *spec_.group->peers();
  kernels::RankMeeting meeting{
      .rank = spec_.group->rank(), .ranks = spec_.group->size(), .aborted = peers.aborted};
  for (size_t rank = 0; rank < static_cast<size_t>(meeting.ranks); ++rank) {
    meeting.flags[rank] = peers.ranks[rank].flags;
  }
  return meeting;
}

// ---- Sums ---------------------------------------------------------------------------------------

void CudaBackend::LinearAddOverRanks(Tensor x, LinearHandle weight, Tensor residual) {
  AddPending(residual);
  partial_ = 1 - partial_;
  Tensor partial = residual;
  partial.data = work_.partials[partial_];
  Multiply(x, weight, partial, GemmEpilogue::kStore, GemmOutput::kRowMajor);
  pending_sum_ = true;
  if (SumsOnPeers()) return;
  const size_t count = static_cast<size_t>(residual.rows) * static_cast<size_t>(residual.cols);
  DoOverRanks(spec_.group->AllReduce(partial.data, count, SumElement::kBfloat16, stream_));
}

void CudaBackend::DoOverRanks(const absl::Status& status) {
  status_.Update(status);
  launches_ = 0;
}

void CudaBackend::AddPending(Tensor residual) {
  if (!std::exchange(pending_sum_, false)) return;
  if (SumsOnPeers()) {
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
  kernels::RankSumArgs args{.meeting = NextMeeting(), .row = row};
  for (size_t rank = 0; rank < static_cast<size_t>(args.meeting.ranks); ++rank) {
    const PeerTable::Rank& line = spec_.group->peers()->ranks[rank];
    args.parts[rank] = static_cast<const bf16*>(line.parts[partial_]);
  }
  Do(kernels::LaunchRankSum(args, Next()));
}

// ---- Logits -------------------------------------------------------------------------------------

void CudaBackend::LogitsOverRanks(Tensor x, LinearHandle weight, Tensor out) {
  logits_part_ = 1 - logits_part_;
  Tensor part = out;
  part.data = work_.logits_parts[logits_part_];
  part.cols = out.cols / spec_.group->size();
  Multiply(x, weight, part, GemmEpilogue::kStore, GemmOutput::kRowMajorFloat);
  if (!SumsOnPeers()) return GatherByLibrary(part, out);
  kernels::RankGatherArgs args{.meeting = NextMeeting()};
  for (size_t rank = 0; rank < static_cast<size_t>(args.meeting.ranks); ++rank) {
    const PeerTable::Rank& line = spec_.group->peers()->ranks[rank];
    args.parts[rank] = static_cast<const float*>(line.logits_parts[logits_part_]);
  }
  args.out = static_cast<float*>(out.data);
  args.rows = out.rows;
  args.cols = part.cols;
  args.stride = (out.cols + 7) / 8 * 8;
  Do(kernels::LaunchRankGather(args, Next()));
}

// [ranks][rows, cols] -> [rows, ranks * cols].
void CudaBackend::GatherByLibrary(Tensor part, Tensor out) {
  const auto cols = static_cast<size_t>(part.cols), rows = static_cast<size_t>(part.rows);
  const size_t width = cols * sizeof(float);
  const size_t stride = static_cast<size_t>((out.cols + 7) / 8 * 8) * sizeof(float);
  DoOverRanks(spec_.group->AllGather(part.data, rows * width, work_.all_logits, stream_));
  for (size_t rank = 0; rank < static_cast<size_t>(spec_.group->size()); ++rank) {
    status_.Update(FromCuda(cudaMemcpy2DAsync(static_cast<float*>(out.data) + rank * cols, stride,
                                              work_.all_logits + rank * rows * cols, width, width,
                                              rows, cudaMemcpyDeviceToDevice, stream_),
                            "logits of the ranks"));
  }
}

}  // namespace behemoth::worker::cuda
