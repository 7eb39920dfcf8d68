#include "worker/checkpoint/int4_readers.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "worker/checkpoint/checkpoint.h"
#include "worker/checkpoint/element.h"
#include "worker/checkpoint/parallel_rows.h"

namespace behemoth::worker {
namespace {

constexpr int32_t kPerWord = 8;

struct Shape {
  int32_t out, in, group_size;
  int32_t groups() const { return in / group_size; }
};

absl::Status Bad(const std::string& tensor, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(tensor, ": ", what));
}

absl::StatusOr<Stored<uint32_t>> ReadWords(const Checkpoint& checkpoint, const std::string& name,
                                           const std::vector<int64_t>& shape) {
  return checkpoint.Read<uint32_t>(name, "I32", shape);
}

// The first element whose exponent is all ones, or `count`. Counted first, so that the loop over
// what is fine has no early exit and runs as vectors.
template <typename Bits>
size_t FirstNotFinite(const Bits* elements, size_t count, Bits exponent) {
  size_t bad = 0;
  for (size_t i = 0; i < count; ++i) bad += (elements[i] & exponent) == exponent ? 1 : 0;
  if (bad == 0) return count;
  return static_cast<size_t>(
      std::find_if(elements, elements + count,
                   [exponent](Bits bits) { return (bits & exponent) == exponent; }) -
      elements);
}

absl::Status CheckFinite(const std::string& name, const DenseMatrix& matrix) {
  const auto* halves = reinterpret_cast<const uint16_t*>(matrix.bytes.data());
  const auto* words = reinterpret_cast<const uint32_t*>(matrix.bytes.data());
  const size_t count = matrix.bytes.size() / BytesPerElement(matrix.type);
  const size_t found = matrix.type == ElementType::kFloat32
                           ? FirstNotFinite(words, count, 0x7f800000u)
                       : matrix.type == ElementType::kBfloat16
                           ? FirstNotFinite(halves, count, static_cast<uint16_t>(0x7f80))
                           : FirstNotFinite(halves, count, static_cast<uint16_t>(0x7c00));
  if (found == count) return absl::OkStatus();
  return Bad(name, absl::StrCat("element ", found, " is not finite"));
}

// As stored, in memory.
absl::StatusOr<DenseMatrix> ReadScales(const Checkpoint& checkpoint, const std::string& name,
                                       const std::vector<int64_t>& shape) {
  absl::StatusOr<DenseMatrix> scales = checkpoint.FindMatrix(name, shape);
  if (!scales.ok()) return scales;
  if (absl::Status loaded = scales->bytes.Load(); !loaded.ok()) return loaded;
  if (absl::Status finite = CheckFinite(name, *scales); !finite.ok()) return finite;
  return scales;
}

// The permutation that makes groups consecutive; empty if they already are, or if any entry is -1
// (the quantizer's mark for "not set").
absl::StatusOr<std::vector<int32_t>> PermutationFrom(const std::string& name,
                                                     const Stored<uint32_t>& g_idx,
                                                     const Shape& shape) {
  std::vector<int32_t> permutation;
  std::vector<int32_t> members(shape.groups(), 0);
  bool consecutive = true;
  for (int32_t c = 0; c < shape.in; ++c) {
    const int32_t group = static_cast<int32_t>(g_idx[c]);
    if (group == -1) return permutation;
    if (group < 0 || group >= shape.groups()) {
      return Bad(name, absl::StrCat("column ", c, " names group ", group, " of ", shape.groups()));
    }
    ++members[group];
    consecutive = consecutive && group == c / shape.group_size;
  }
  for (int32_t g = 0; g < shape.groups(); ++g) {
    if (members[g] != shape.group_size) {
      return Bad(
          name, absl::StrCat("group ", g, " has ", members[g], " columns, not ", shape.group_size));
    }
  }
  if (consecutive) return permutation;
  permutation.resize(shape.in);
  std::iota(permutation.begin(), permutation.end(), 0);
  std::stable_sort(permutation.begin(), permutation.end(), [&](int32_t a, int32_t b) {
    return static_cast<int32_t>(g_idx[a]) < static_cast<int32_t>(g_idx[b]);
  });
  return permutation;
}

// Column c of the result is column permutation[c], in every row.
std::vector<uint32_t> WithPermutedColumns(const Shape& shape,
                                          const std::vector<int32_t>& permutation,
                                          const Stored<uint32_t>& nibbles) {
  const int32_t words = shape.in / kPerWord;
  std::vector<uint32_t> result(nibbles.size());
  ParallelRows(shape.out, nibbles.bytes().size(), [&](int32_t begin, int32_t end) {
    for (int64_t o = begin; o < end; ++o) {
      const uint32_t* row = nibbles.data() + o * words;
      for (int32_t w = 0; w < words; ++w) {
        uint32_t word = 0;
        for (int32_t i = 0; i < kPerWord; ++i) {
          const int32_t from = permutation[kPerWord * w + i];
          word |= ((row[from / kPerWord] >> (4 * (from % kPerWord))) & 15) << (4 * i);
        }
        result[o * words + w] = word;
      }
    }
  });
  return result;
}

absl::Status ApplyGroupIndex(const Checkpoint& checkpoint, const LinearScheme& scheme,
                             const std::string& name, const Shape& shape, Int4Weights& weights) {
  if (!checkpoint.Has(name)) {
    // A g_idx that is never written means "not set" to compressed-tensors; GPTQ always writes it.
    const bool needed = scheme.uses_g_idx && scheme.format != PackFormat::kPackQuantized;
    return needed ? Bad(name, "is missing, but the config says desc_act") : absl::OkStatus();
  }
  absl::StatusOr<Stored<uint32_t>> g_idx = ReadWords(checkpoint, name, {shape.in});
  if (!g_idx.ok()) return g_idx.status();
  absl::StatusOr<std::vector<int32_t>> permutation = PermutationFrom(name, *g_idx, shape);
  if (!permutation.ok()) return permutation.status();
  weights.permutation = *std::move(permutation);
  if (weights.permutation.empty()) return absl::OkStatus();
  if (absl::Status loaded = weights.nibbles.Load(); !loaded.ok()) return loaded;
  weights.nibbles = WithPermutedColumns(shape, weights.permutation, weights.nibbles);
  return absl::OkStatus();
}

// Zero points of pack-quantized: packed along the outputs, or (files older than 2025-04) one
// signed byte each.
absl::Status ReadPackedZeros(const Checkpoint& checkpoint, const std::string& name,
                             const Shape& shape, Int4Weights& weights) {
  absl::StatusOr<std::string> dtype = checkpoint.DtypeOf(name);
  if (!dtype.ok()) return dtype.status();
  const int32_t groups = shape.groups();
  weights.zeros.resize(static_cast<size_t>(shape.out) * groups);
  if (*dtype == "I8") {
    absl::StatusOr<Stored<uint8_t>> bytes =
        checkpoint.Read<uint8_t>(name, "I8", {shape.out, groups});
    if (!bytes.ok()) return bytes.status();
    for (size_t i = 0; i < weights.zeros.size(); ++i) {
      const int32_t zero = static_cast<int8_t>((*bytes)[i]);
      if (zero < -8 || zero > 7) return Bad(name, absl::StrCat(zero, " is not an int4"));
      weights.zeros[i] = static_cast<uint8_t>(zero + 8);
    }
    return absl::OkStatus();
  }
  absl::StatusOr<Stored<uint32_t>> words =
      ReadWords(checkpoint, name, {(shape.out + kPerWord - 1) / kPerWord, groups});
  if (!words.ok()) return words.status();
  for (int32_t o = 0; o < shape.out; ++o) {
    for (int32_t g = 0; g < groups; ++g) {
      const uint32_t word = (*words)[static_cast<size_t>(o / kPerWord) * groups + g];
      weights.zeros[static_cast<size_t>(o) * groups + g] = (word >> (4 * (o % kPerWord))) & 15;
    }
  }
  return absl::OkStatus();
}

absl::Status CheckStoredShape(const Checkpoint& checkpoint, const std::string& name,
                              const Shape& shape) {
  if (!checkpoint.Has(name)) return absl::OkStatus();
  absl::StatusOr<std::string> dtype = checkpoint.DtypeOf(name);
  if (!dtype.ok()) return dtype.status();
  int64_t stored[2];
  if (*dtype == "I32") {
    absl::StatusOr<Stored<int32_t>> narrow = checkpoint.Read<int32_t>(name, "I32", {2});
    if (!narrow.ok()) return narrow.status();
    std::copy(narrow->begin(), narrow->end(), stored);
  } else {
    absl::StatusOr<Stored<int64_t>> wide = checkpoint.Read<int64_t>(name, "I64|I32", {2});
    if (!wide.ok()) return wide.status();
    std::copy(wide->begin(), wide->end(), stored);
  }
  if (stored[0] == shape.out && stored[1] == shape.in) return absl::OkStatus();
  return Bad(name, absl::StrCat("says [", stored[0], ", ", stored[1], "], config.json says [",
                                shape.out, ", ", shape.in, "]"));
}

absl::StatusOr<Int4Weights> ReadPackQuantized(const Checkpoint& checkpoint,
                                              const LinearScheme& scheme, const std::string& module,
                                              const Shape& shape) {
  absl::Status known = checkpoint.OnlyHas(module, {"weight_packed", "weight_scale", "weight_shape",
                                                   "weight_zero_point", "weight_g_idx"});
  if (!known.ok()) return known;
  absl::Status stored = CheckStoredShape(checkpoint, module + ".weight_shape", shape);
  if (!stored.ok()) return stored;
  absl::StatusOr<StoredBytes> nibbles =
      checkpoint.Find(module + ".weight_packed", "I32", {shape.out, shape.in / kPerWord});
  if (!nibbles.ok()) return nibbles.status();
  absl::StatusOr<DenseMatrix> scales =
      ReadScales(checkpoint, module + ".weight_scale", {shape.out, shape.groups()});
  if (!scales.ok()) return scales.status();
  Int4Weights weights;
  weights.group_size = shape.group_size;
  weights.nibbles = Stored<uint32_t>(*std::move(nibbles));  // the file's layout is ours
  weights.product = scales->type;
  weights.scales = *std::move(scales);
  const std::string zeros = module + ".weight_zero_point";
  if (!scheme.symmetric || checkpoint.Has(zeros)) {
    absl::Status read = ReadPackedZeros(checkpoint, zeros, shape, weights);
    if (!read.ok()) return read;
  }
  absl::Status grouped =
      ApplyGroupIndex(checkpoint, scheme, module + ".weight_g_idx", shape, weights);
  if (!grouped.ok()) return grouped;
  return weights;
}

// GPTQ exporters write a bias of zeros for models that have none.
absl::Status RefuseBias(const Checkpoint& checkpoint, const std::string& name, int32_t out) {
  if (!checkpoint.Has(name)) return absl::OkStatus();
  absl::StatusOr<Stored<uint8_t>> bytes = checkpoint.Read<uint8_t>(name, "BF16|F16|F32", {out});
  if (!bytes.ok()) return bytes.status();
  const bool zero = std::all_of(bytes->begin(), bytes->end(), [](uint8_t b) { return b == 0; });
  return zero ? absl::OkStatus() : Bad(name, "is not zero; biases are not served");
}

// qzeros [groups, out / 8]. Version 1 stores zero - 1, subtracted from whole words: adding to the
// whole word undoes it exactly, a borrow between nibbles (zero = 0) included.
absl::Status ReadGptqZeros(const Checkpoint& checkpoint, PackFormat format, const std::string& name,
                           const Shape& shape, Int4Weights& weights) {
  const int32_t words_per_group = shape.out / kPerWord;
  absl::StatusOr<Stored<uint32_t>> words =
      ReadWords(checkpoint, name, {shape.groups(), words_per_group});
  if (!words.ok()) return words.status();
  const uint32_t offset = format == PackFormat::kGptqV1 ? 0x11111111u : 0u;
  weights.zeros.resize(static_cast<size_t>(shape.out) * shape.groups());
  for (int32_t g = 0; g < shape.groups(); ++g) {
    for (int32_t o = 0; o < shape.out; ++o) {
      const uint32_t word =
          (*words)[static_cast<size_t>(g) * words_per_group + o / kPerWord] + offset;
      weights.zeros[static_cast<size_t>(o) * shape.groups() + g] =
          (word >> (4 * (o % kPerWord))) & 15;
    }
  }
  return absl::OkStatus();
}

// [rows, cols] -> [cols, rows]. In squares of a cache line's side: both sides are then read and
// written a line at a time.
template <typename T>
std::vector<T> Transposed(const T* matrix, int32_t rows, int32_t cols) {
  constexpr int32_t kSide = 64 / sizeof(T);
  std::vector<T> result(static_cast<size_t>(rows) * cols);
  ParallelRows(cols, result.size() * sizeof(T), [&](int32_t begin, int32_t end) {
    for (int32_t c0 = begin; c0 < end; c0 += kSide) {
      for (int32_t r0 = 0; r0 < rows; r0 += kSide) {
        for (int32_t c = c0; c < std::min(end, c0 + kSide); ++c) {
          for (int32_t r = r0; r < std::min(rows, r0 + kSide); ++r) {
            result[static_cast<size_t>(c) * rows + r] = matrix[static_cast<size_t>(r) * cols + c];
          }
        }
      }
    }
  });
  return result;
}

DenseMatrix Transposed(const DenseMatrix& m) {
  const uint8_t* bytes = m.bytes.data();
  if (m.type == ElementType::kFloat32) {
    const auto* floats = reinterpret_cast<const float*>(bytes);
    return MatrixOf(m.cols, m.rows, Transposed(floats, m.rows, m.cols));
  }
  const auto* halves = reinterpret_cast<const uint16_t*>(bytes);
  DenseMatrix transposed = MatrixOf(m.cols, m.rows, Transposed(halves, m.rows, m.cols));
  transposed.type = m.type;
  return transposed;
}

// Files hold float16 scales also where the model is bf16. GPTQModel and vLLM cast them to the
// model's dtype when they load, so those are the weights that the file's maker measured; the
// product is of that type. What was cast to float16 is kept as floats of the same values.
void CastScales(const LinearScheme& scheme, Int4Weights& weights) {
  const ElementType stored = weights.scales.type;
  weights.product = scheme.scale_type.value_or(stored);
  if (weights.product == stored || weights.product == ElementType::kFloat32) return;
  if (weights.product == ElementType::kBfloat16) {
    weights.scales = AsBfloat16(weights.scales);
    return;
  }
  std::vector<float> floats = FloatsOf(weights.scales);
  for (float& scale : floats) scale = RoundToFloat16(scale);
  weights.scales = MatrixOf(weights.scales.rows, weights.scales.cols, std::move(floats));
}

absl::StatusOr<Int4Weights> ReadGptq(const Checkpoint& checkpoint, const LinearScheme& scheme,
                                     const std::string& module, const Shape& shape) {
  absl::Status known = checkpoint.OnlyHas(module, {"qweight", "qzeros", "scales", "g_idx", "bias"});
  if (!known.ok()) return known;
  if (shape.out % kPerWord != 0) return Bad(module, "outputs must be a multiple of 8");
  absl::Status no_bias = RefuseBias(checkpoint, module + ".bias", shape.out);
  if (!no_bias.ok()) return no_bias;
  const int32_t words = shape.in / kPerWord;
  absl::StatusOr<Stored<uint32_t>> qweight =
      ReadWords(checkpoint, module + ".qweight", {words, shape.out});
  if (!qweight.ok()) return qweight.status();
  absl::StatusOr<DenseMatrix> scales =
      ReadScales(checkpoint, module + ".scales", {shape.groups(), shape.out});
  if (!scales.ok()) return scales.status();
  Int4Weights weights;
  weights.group_size = shape.group_size;
  weights.nibbles = Transposed(qweight->data(), words, shape.out);
  weights.scales = Transposed(*scales);
  CastScales(scheme, weights);
  absl::Status zeros = ReadGptqZeros(checkpoint, scheme.format, module + ".qzeros", shape, weights);
  if (!zeros.ok()) return zeros;
  absl::Status grouped = ApplyGroupIndex(checkpoint, scheme, module + ".g_idx", shape, weights);
  if (!grouped.ok()) return grouped;
  return weights;
}

}  // namespace

absl::StatusOr<LinearWeights> ReadInt4(const Checkpoint& checkpoint, const LinearScheme& scheme,
                                       const std::string& module, int32_t out, int32_t in) {
  const Shape shape = {out, in, scheme.group_size < 0 ? in : scheme.group_size};
  if (in % kPerWord != 0 || shape.group_size % kPerWord != 0 || in % shape.group_size != 0) {
    return Bad(module, absl::StrCat("groups of ", shape.group_size, " do not tile ", in,
                                    " inputs in words of 8"));
  }
  absl::StatusOr<Int4Weights> weights = scheme.format == PackFormat::kPackQuantized
                                            ? ReadPackQuantized(checkpoint, scheme, module, shape)
                                            : ReadGptq(checkpoint, scheme, module, shape);
  if (!weights.ok()) return weights.status();
  // All zero points 8: the symmetric case, which backends serve without reading them.
  const std::vector<uint8_t>& zeros = weights->zeros;
  if (std::all_of(zeros.begin(), zeros.end(), [](uint8_t zero) { return zero == 8; })) {
    weights->zeros.clear();
  }
  return LinearWeights{out, in, *std::move(weights)};
}

}  // namespace behemoth::worker
