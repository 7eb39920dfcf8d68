// A projection on the CPU: one or more stacked parts, each int4 or dense, kept as the checkpoint
// has them. A row of weights is turned into floats once and multiplied with every token.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <vector>

#include "worker/checkpoint/linear_weights.h"
#include "worker/device/cpu/thread_team.h"

namespace behemoth::worker::cpu {

class CpuLinear {
 public:
  // Parts of the same `in`; float16 parts are widened to float.
  static absl::StatusOr<CpuLinear> Make(std::vector<LinearWeights> parts);
  // A view of `rows` rows of `table`, which must outlive it.
  CpuLinear(const DenseMatrix* table, int32_t first_row, int32_t rows);

  int32_t in() const { return in_; }
  int32_t out() const { return out_; }

  struct Call {
    const float* x;  // [tokens, in]
    int32_t tokens;
    float* y;  // [tokens, out]
    bool accumulate;
    float* gathered;  // scratch [tokens, in], for parts with a permutation
    float* rows;      // scratch [threads, in]
  };
  void Run(ThreadTeam& team, const Call& call) const;

 private:
  struct Part {
    LinearWeights weights;
    std::vector<float> scales;           // of int4 weights
    const DenseMatrix* table = nullptr;  // instead of `weights`
    int32_t first_row = 0;               // of it
    int32_t out = 0;
    int32_t first_out = 0;
  };
  CpuLinear() = default;
  void RunPart(const Part& part, ThreadTeam& team, const Call& call) const;
  static const float* RowAsFloats(const Part& part, int32_t o, int32_t in, float* scratch);

  std::vector<Part> parts_;
  int32_t in_ = 0;
  int32_t out_ = 0;
};

// The same values; float16 becomes float, the other types stay.
DenseMatrix WithoutFloat16(DenseMatrix matrix);
// Row `row` as floats: into `scratch` [cols], or in place if it is float.
const float* DenseRow(const DenseMatrix& matrix, int64_t row, float* scratch);

}  // namespace behemoth::worker::cpu
