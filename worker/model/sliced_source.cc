#include "worker/model/sliced_source.h"

#include <absl/strings/str_cat.h>

#include <utility>

#include "worker/checkpoint/slice.h"
#include "worker/model/weights.h"

namespace behemoth::worker {

SlicedSource::SlicedSource(std::unique_ptr<WeightSource> whole, int32_t rank, int32_t ranks)
    : whole_(std::move(whole)), rank_(rank), ranks_(ranks) {}

absl::StatusOr<DenseMatrix> SlicedSource::ReadDense(const std::string& name, int32_t rows,
                                                    int32_t cols) {
  return whole_->ReadDense(name, rows, cols);
}

absl::StatusOr<LinearWeights> SlicedSource::ReadLinear(const std::string& module, int32_t out,
                                                       int32_t in) {
  const bool by_outputs = CutOf(module) == Cut::kOutputs;
  const int32_t whole_out = by_outputs ? out * ranks_ : out;
  const int32_t whole_in = by_outputs ? in : in * ranks_;
  absl::StatusOr<LinearWeights> whole = whole_->ReadLinear(module, whole_out, whole_in);
  if (!whole.ok()) return whole;
  if (by_outputs) return OutputsOf(*whole, {rank_ * out, out});
  absl::StatusOr<LinearWeights> part = InputsOf(*whole, {rank_ * in, in});
  if (part.ok()) return part;
  return absl::Status(part.status().code(), absl::StrCat(module, ": ", part.status().message()));
}

absl::StatusOr<bool> SlicedSource::ShareInputOrder(const std::vector<std::string>& modules,
                                                   int32_t in) {
  const bool by_outputs = CutOf(modules.front()) == Cut::kOutputs;
  return whole_->ShareInputOrder(modules, by_outputs ? in : in * ranks_);
}

absl::StatusOr<std::vector<float>> SlicedSource::ReadKvScale(const std::string& name,
                                                             int32_t kv_heads) {
  absl::StatusOr<std::vector<float>> whole = whole_->ReadKvScale(name, kv_heads * ranks_);
  if (!whole.ok() || whole->empty()) return whole;
  const auto begin = whole->begin() + rank_ * kv_heads;
  return std::vector<float>(begin, begin + kv_heads);
}

}  // namespace behemoth::worker
