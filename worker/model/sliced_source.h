// One rank's part of a model's weights, out of a source of all of them. Column-parallel projections
// (q, k, v, gate, up, the head) are cut by outputs, row-parallel ones (o, down) by inputs, so that
// a layer needs two sums over the ranks and nothing else (Megatron-LM, arXiv:1909.08053 section 3).
// Tables and gains are every rank's whole.
//
// Thread-compatible; each rank has its own, over a source of its own.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "worker/checkpoint/weight_source.h"

namespace behemoth::worker {

class SlicedSource : public WeightSource {
 public:
  // Dimensions that callers ask for are the part's: of 1 / `ranks` of the outputs or inputs.
  SlicedSource(std::unique_ptr<WeightSource> whole, int32_t rank, int32_t ranks);
  absl::StatusOr<DenseMatrix> ReadDense(const std::string& name, int32_t rows,
                                        int32_t cols) override;
  // Besides the source's errors: those of InputsOf (checkpoint/slice.h), naming the module.
  absl::StatusOr<LinearWeights> ReadLinear(const std::string& module, int32_t out,
                                           int32_t in) override;
  absl::StatusOr<bool> ShareInputOrder(const std::vector<std::string>& modules,
                                       int32_t in) override;
  absl::StatusOr<std::vector<float>> ReadKvScale(const std::string& name,
                                                 int32_t kv_heads) override;

 private:
  const std::unique_ptr<WeightSource> whole_;
  const int32_t rank_, ranks_;
};

}  // namespace behemoth::worker
