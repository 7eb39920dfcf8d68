#include "worker/checkpoint/slice.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <utility>

namespace behemoth::worker {
namespace {

constexpr int32_t kPerWord = 8;

size_t Bytes(int64_t elements, size_t element_bytes) {
  return static_cast<size_t>(elements) * element_bytes;
}

DenseMatrix Rows(const DenseMatrix& m, Interval rows) {
  const size_t row = Bytes(m.cols, BytesPerElement(m.type));
  const auto begin = static_cast<size_t>(rows.first), count = static_cast<size_t>(rows.count);
  return {m.type, rows.count, m.cols,
          Stored<uint8_t>(m.bytes.bytes().Range(begin * row, count * row))};
}

DenseMatrix Columns(const DenseMatrix& m, Interval cols) {
  const size_t element = BytesPerElement(m.type);
  return {m.type, m.rows, cols.count,
          Stored<uint8_t>(m.bytes.bytes().Columns(
              Bytes(m.cols, element), Bytes(cols.first, element), Bytes(cols.count, element)))};
}

// One seed a part, so that a device can make the part in place.
uint64_t SeedOfPart(uint64_t seed, int32_t first) {
  return seed + static_cast<uint64_t>(first) * 0xbf58476d1ce4e5b9u;
}

Int4Weights OutputsOf(const Int4Weights& weights, int32_t in, Interval outputs) {
  Int4Weights part = weights;
  if (weights.seed) {
    part.seed = SeedOfPart(*weights.seed, outputs.first);
    return part;
  }
  const auto first = static_cast<size_t>(outputs.first), count = static_cast<size_t>(outputs.count);
  const size_t row = Bytes(in / kPerWord, sizeof(uint32_t));
  part.nibbles = Stored<uint32_t>(weights.nibbles.bytes().Range(first * row, count * row));
  part.scales = Rows(weights.scales, outputs);
  if (!weights.zeros.empty()) {
    const auto groups = static_cast<size_t>(in / weights.group_size);
    const auto begin = weights.zeros.begin() + static_cast<std::ptrdiff_t>(first * groups);
    part.zeros.assign(begin, begin + static_cast<std::ptrdiff_t>(count * groups));
  }
  return part;
}

// The order within the part, if the part is closed under it: its groups take its inputs only.
absl::StatusOr<std::vector<int32_t>> OrderWithin(const std::vector<int32_t>& order,
                                                 Interval inputs) {
  std::vector<int32_t> within;
  if (order.empty()) return within;
  for (int32_t c = 0; c < inputs.count; ++c) {
    const int32_t input = order[static_cast<size_t>(inputs.first + c)] - inputs.first;
    if (input < 0 || input >= inputs.count) {
      return absl::UnimplementedError(
          "act-order (g_idx): its groups take inputs of several ranks; it can be served by one");
    }
    within.push_back(input);
  }
  return within;
}

absl::StatusOr<Int4Weights> InputsOf(const Int4Weights& weights, int32_t out, int32_t in,
                                     Interval inputs) {
  if (!CanCutInputs(weights.group_size, inputs.count) || inputs.first % inputs.count != 0) {
    return absl::UnimplementedError(absl::StrCat(in, " inputs in groups of ", weights.group_size,
                                                 " cannot be cut at ", inputs.count));
  }
  absl::StatusOr<std::vector<int32_t>> order = OrderWithin(weights.permutation, inputs);
  if (!order.ok()) return order.status();
  Int4Weights part = weights;
  part.permutation = *std::move(order);
  // A part of one group is a group: every part gets the group's scale.
  part.group_size = std::min(weights.group_size, inputs.count);
  if (weights.seed) {
    part.seed = SeedOfPart(*weights.seed, inputs.first);
    return part;
  }
  const size_t word = sizeof(uint32_t);
  part.nibbles = Stored<uint32_t>(weights.nibbles.bytes().Columns(
      Bytes(in / kPerWord, word), Bytes(inputs.first / kPerWord, word),
      Bytes(inputs.count / kPerWord, word)));
  const Interval groups = {inputs.first / weights.group_size,
                           std::max(1, inputs.count / weights.group_size)};
  part.scales = Columns(weights.scales, groups);
  if (!weights.zeros.empty()) {
    const int64_t all = in / weights.group_size;
    part.zeros.clear();
    for (int64_t o = 0; o < out; ++o) {
      const auto begin = weights.zeros.begin() + o * all + groups.first;
      part.zeros.insert(part.zeros.end(), begin, begin + groups.count);
    }
  }
  return part;
}

}  // namespace

LinearWeights OutputsOf(const LinearWeights& weights, Interval outputs) {
  LinearWeights part{outputs.count, weights.in, {}};
  if (const auto* dense = std::get_if<DenseMatrix>(&weights.values)) {
    part.values = Rows(*dense, outputs);
  } else {
    part.values = OutputsOf(std::get<Int4Weights>(weights.values), weights.in, outputs);
  }
  return part;
}

absl::StatusOr<LinearWeights> InputsOf(const LinearWeights& weights, Interval inputs) {
  LinearWeights part{weights.out, inputs.count, {}};
  if (const auto* dense = std::get_if<DenseMatrix>(&weights.values)) {
    part.values = Columns(*dense, inputs);
    return part;
  }
  absl::StatusOr<Int4Weights> int4 =
      InputsOf(std::get<Int4Weights>(weights.values), weights.out, weights.in, inputs);
  if (!int4.ok()) return int4.status();
  part.values = *std::move(int4);
  return part;
}

bool CanCutInputs(int32_t group_size, int32_t count) {
  const bool whole_words = count > 0 && count % kPerWord == 0;
  return whole_words && (group_size < 0 || count % group_size == 0 || group_size % count == 0);
}

}  // namespace behemoth::worker
