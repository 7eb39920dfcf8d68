#include "worker/device/cpu/cpu_linear.h"

#include <absl/strings/str_cat.h>

#include <utility>

#include "worker/device/cpu/vector_loops.h"

namespace behemoth::worker::cpu {

DenseMatrix WithoutFloat16(DenseMatrix matrix) {
  if (matrix.type != ElementType::kFloat16) return matrix;
  return MatrixOf(matrix.rows, matrix.cols, FloatsOf(matrix));
}

const float* DenseRow(const DenseMatrix& matrix, int64_t row, float* scratch) {
  // What is in memory is aligned for any type of ours.
  if (matrix.type == ElementType::kFloat32) {
    return reinterpret_cast<const float*>(matrix.bytes.data()) + row * matrix.cols;
  }
  WidenBfloat16(reinterpret_cast<const uint16_t*>(matrix.bytes.data()) + row * matrix.cols,
                matrix.cols, scratch);
  return scratch;
}

absl::StatusOr<CpuLinear> CpuLinear::Make(std::vector<LinearWeights> parts) {
  CpuLinear linear;
  for (LinearWeights& weights : parts) {
    if (linear.in_ != 0 && weights.in != linear.in_) {
      return absl::InternalError(
          absl::StrCat("parts of ", linear.in_, " and ", weights.in, " inputs cannot be stacked"));
    }
    linear.in_ = weights.in;
    if (absl::Status loaded = Load(weights); !loaded.ok()) return loaded;
    if (auto* dense = std::get_if<DenseMatrix>(&weights.values)) {
      *dense = WithoutFloat16(std::move(*dense));
    }
    Part part;
    if (auto* int4 = std::get_if<Int4Weights>(&weights.values)) {
      part.scales = FloatsOf(int4->scales);
      int4->scales = {};
    }
    part.out = weights.out;
    part.first_out = linear.out_;
    part.weights = std::move(weights);
    linear.out_ += part.out;
    linear.parts_.push_back(std::move(part));
  }
  return linear;
}

CpuLinear::CpuLinear(const DenseMatrix* table, int32_t first_row, int32_t rows)
    : in_(table->cols), out_(rows) {
  Part part;
  part.table = table;
  part.first_row = first_row;
  part.out = rows;
  parts_.push_back(std::move(part));
}

const float* CpuLinear::RowAsFloats(const Part& part, int32_t o, int32_t in, float* scratch) {
  if (part.table != nullptr) return DenseRow(*part.table, part.first_row + o, scratch);
  if (const auto* dense = std::get_if<DenseMatrix>(&part.weights.values)) {
    return DenseRow(*dense, o, scratch);
  }
  const auto& int4 = std::get<Int4Weights>(part.weights.values);
  const int64_t groups = in / int4.group_size;
  Dequantize({.words = int4.nibbles.data() + int64_t{o} * (in / 8),
              .scales = part.scales.data() + o * groups,
              .zeros = int4.zeros.empty() ? nullptr : int4.zeros.data() + o * groups,
              .cols = in,
              .group_size = int4.group_size,
              .product = int4.product},
             scratch);
  return scratch;
}

void CpuLinear::Run(ThreadTeam& team, const Call& call) const {
  for (const Part& part : parts_) RunPart(part, team, call);
}

void CpuLinear::RunPart(const Part& part, ThreadTeam& team, const Call& call) const {
  const float* x = call.x;
  const auto* int4 = std::get_if<Int4Weights>(&part.weights.values);
  if (int4 != nullptr && !int4->permutation.empty()) {
    for (int64_t t = 0; t < call.tokens; ++t) {
      for (int64_t c = 0; c < in_; ++c) {
        call.gathered[t * in_ + c] = call.x[t * in_ + int4->permutation[c]];
      }
    }
    x = call.gathered;
  }
  team.Run(part.out, [&](int32_t thread, int32_t begin, int32_t end) {
    float* scratch = call.rows + int64_t{thread} * in_;
    for (int32_t o = begin; o < end; ++o) {
      Dots({.weight = RowAsFloats(part, o, in_, scratch),
            .cols = in_,
            .x = x,
            .x_stride = in_,
            .tokens = call.tokens,
            .y = call.y + part.first_out + o,
            .y_stride = out_,
            .accumulate = call.accumulate});
    }
  });
}

}  // namespace behemoth::worker::cpu
