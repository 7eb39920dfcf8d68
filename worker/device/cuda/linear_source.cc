#include "worker/device/cuda/linear_source.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <variant>

#include "kernels/w4a16_gemm/random_source.h"
#include "kernels/w4a16_gemm/repack.h"
#include "worker/checkpoint/element.h"
#include "worker/device/cuda/cuda_status.h"

namespace behemoth::worker::cuda {
namespace {

using kernels::bf16;

const Int4Weights* AsInt4(const LinearWeights& part) {
  return std::get_if<Int4Weights>(&part.values);
}

float RoundTo(ElementType type, float value) {
  switch (type) {
    case ElementType::kBfloat16:
      return kernels::ToFloat(kernels::ToBf16(value));
    case ElementType::kFloat16:
      return RoundToFloat16(value);
    case ElementType::kFloat32:
      return value;
  }
  return value;
}

// Row `o` of a part in the model's own order of inputs, each weight rounded once to bf16.
void DenseRow(const LinearWeights& part, int32_t o, bf16* row) {
  if (const auto* dense = std::get_if<DenseMatrix>(&part.values)) {
    const int64_t first = int64_t{o} * part.in;
    for (int32_t c = 0; c < part.in; ++c) {
      row[c] = kernels::ToBf16(ElementAt(dense->type, dense->bytes.data(), first + c));
    }
    return;
  }
  const Int4Weights& int4 = *AsInt4(part);
  const int64_t groups = part.in / int4.group_size;
  for (int32_t c = 0; c < part.in; ++c) {
    const int64_t group = o * groups + c / int4.group_size;
    const uint32_t word = int4.nibbles[static_cast<size_t>(int64_t{o} * (part.in / 8) + c / 8)];
    const int nibble = static_cast<int>(word >> (4 * (c % 8)) & 15);
    const int zero = int4.zeros.empty() ? 8 : int4.zeros[static_cast<size_t>(group)];
    const float value = RoundTo(
        int4.product, static_cast<float>(nibble - zero) * int4.scales[static_cast<size_t>(group)]);
    row[int4.permutation.empty() ? c : int4.permutation[static_cast<size_t>(c)]] =
        kernels::ToBf16(value);
  }
}

// Symmetric scales have no packed form from kScaleLimit on (packed_layout.h): weights past +-4,
// which no trained projection has. Refused, because the kernels would read infinities.
absl::Status CheckScales(const DenseMatrix& scales) {
  const auto* bits = reinterpret_cast<const uint16_t*>(scales.bytes.data());
  uint16_t largest = 0;
  for (size_t i = 0; i < scales.bytes.size() / 2; ++i) {
    largest = std::max<uint16_t>(largest, bits[i] & 0x7fff);
  }
  const float value = kernels::ToFloat({largest});
  if (value < kernels::kScaleLimit) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "an int4 scale is ", value, "; without zero points the GPU kernels take scales below ",
      kernels::kScaleLimit));
}

// Each element `repeats` times; once = the bytes themselves.
template <typename T>
StoredBytes Repeated(const Stored<uint8_t>& bytes, size_t repeats) {
  if (repeats == 1) return bytes.bytes();
  const auto* elements = reinterpret_cast<const T*>(bytes.data());
  std::vector<T> repeated;
  repeated.reserve(bytes.size() / sizeof(T) * repeats);
  for (size_t i = 0; i < bytes.size() / sizeof(T); ++i) {
    repeated.insert(repeated.end(), repeats, elements[i]);
  }
  return Stored<T>(std::move(repeated)).bytes();
}

}  // namespace

int32_t KernelGroup(int32_t group_size, int32_t in) {
  constexpr int32_t kUnit = kernels::kInt4UnitColumns;
  if (in % kUnit != 0) return 0;
  if (group_size == 32 || group_size == 64) return group_size;
  return group_size % kUnit == 0 ? kUnit : 0;
}

kernels::WeightKind Int4Kind(int32_t kernel_group, bool zero_points) {
  using kernels::WeightKind;
  switch (kernel_group) {
    case 32:
      return zero_points ? WeightKind::kInt4ZeroPointGroup32 : WeightKind::kInt4Group32;
    case 64:
      return zero_points ? WeightKind::kInt4ZeroPointGroup64 : WeightKind::kInt4Group64;
    default:
      return zero_points ? WeightKind::kInt4ZeroPoint : WeightKind::kInt4;
  }
}

absl::Status LinearSource::Prepare(std::vector<LinearWeights>& parts) {
  const bool in_place = std::all_of(parts.begin(), parts.end(), [&](const LinearWeights& part) {
    const Int4Weights* const int4 = AsInt4(part);
    const Int4Weights* const first = AsInt4(parts.front());
    return int4 != nullptr && first != nullptr && int4->seed &&
           int4->group_size == first->group_size &&
           int4->group_size == KernelGroup(int4->group_size, part.in);
  });
  if (in_place) return absl::OkStatus();
  for (LinearWeights& part : parts) {
    const Int4Weights* const int4 = AsInt4(part);
    if (int4 == nullptr || !int4->seed) continue;
    if (absl::Status made = Load(part); !made.ok()) return made;
  }
  return absl::OkStatus();
}

LinearSource LinearSource::Take(Arena& arena, const std::vector<LinearWeights>& parts) {
  LinearSource source;
  source.k_ = parts.front().in;
  const Int4Weights* const first = AsInt4(parts.front());
  bool alike = first != nullptr, zeros = false;
  for (const LinearWeights& part : parts) {
    source.n_ += part.out;
    const Int4Weights* const int4 = AsInt4(part);
    alike = alike && int4 != nullptr && int4->group_size == first->group_size &&
            int4->permutation == first->permutation;
    zeros |= int4 != nullptr && !int4->zeros.empty();
  }
  source.group_ = alike ? KernelGroup(first->group_size, source.k_) : 0;
  const size_t cells = static_cast<size_t>(source.n_) * static_cast<size_t>(source.k_);
  if (source.group_ == 0) {
    source.dense_ = arena.Take<bf16>(cells);
    return source;
  }
  source.kind_ = Int4Kind(source.group_, zeros);
  source.permutation_ = first->permutation;
  const size_t groups = cells / static_cast<size_t>(source.group_);
  source.nibbles_ = arena.Take<uint32_t>(cells / 8);
  source.scales_ = arena.Take<bf16>(groups);
  if (zeros) source.zeros_ = arena.Take<uint8_t>(groups);
  return source;
}

absl::StatusOr<UploadTicket> LinearSource::Upload(std::vector<LinearWeights>& parts,
                                                  HostUpload& upload, CUstream_st* stream) const {
  return group_ == 0 ? UploadDense(parts, upload) : UploadInt4(parts, upload, stream);
}

absl::Status LinearSource::Pack(bool interleave, void* packed, CUstream_st* stream) const {
  if (group_ == 0) {
    const kernels::Bf16Source source{
        .weight = dense_, .n = n_, .k = k_, .interleave_halves = interleave};
    return FromKernel(kernels::LaunchRepackBf16(source, packed, {stream}));
  }
  const kernels::Int4Source source{.weight = nibbles_,
                                   .scale = scales_,
                                   .zero_point = zeros_,
                                   .n = n_,
                                   .k = k_,
                                   .interleave_halves = interleave,
                                   .group_columns = group_};
  return FromKernel(kernels::LaunchRepackInt4(source, packed, {stream}));
}

// Nibbles go from their file to the device. So do scales, but for the look at them that the reader
// took, if they are bf16 and of a group size that the kernels have.
absl::StatusOr<UploadTicket> LinearSource::UploadInt4(const std::vector<LinearWeights>& parts,
                                                      HostUpload& upload,
                                                      CUstream_st* stream) const {
  const size_t row_groups = static_cast<size_t>(k_ / group_);
  absl::StatusOr<UploadTicket> last = UploadTicket{};
  int64_t first_row = 0;
  for (const LinearWeights& part : parts) {
    const Int4Weights& int4 = *AsInt4(part);
    if (int4.seed) {
      absl::Status made = MakeRandom(part, first_row, stream);
      if (!made.ok()) return made;
      first_row += part.out;
      continue;
    }
    const size_t repeats = static_cast<size_t>(int4.group_size / group_);
    const size_t at = static_cast<size_t>(first_row) * row_groups;
    last = upload.Start(nibbles_ + first_row * (k_ / 8), int4.nibbles.bytes());
    if (!last.ok()) return last;
    const DenseMatrix scales = AsBfloat16(int4.scales);
    if (zeros_ == nullptr) {
      if (absl::Status fit = CheckScales(scales); !fit.ok()) return fit;
    }
    last = upload.Start(scales_ + at, Repeated<uint16_t>(scales.bytes, repeats));
    if (!last.ok()) return last;
    if (zeros_ != nullptr) {
      const Stored<uint8_t> zeros =
          int4.zeros.empty() ? std::vector<uint8_t>(scales.size(), 8) : int4.zeros;
      last = upload.Start(zeros_ + at, Repeated<uint8_t>(zeros, repeats));
      if (!last.ok()) return last;
    }
    first_row += part.out;
  }
  return last;
}

absl::Status LinearSource::MakeRandom(const LinearWeights& part, int64_t first_row,
                                      CUstream_st* stream) const {
  const int64_t groups = k_ / group_;
  if (zeros_ != nullptr) {
    absl::Status set = FromCuda(cudaMemsetAsync(zeros_ + first_row * groups, 8,
                                                static_cast<size_t>(part.out * groups), stream),
                                "cudaMemset");
    if (!set.ok()) return set;
  }
  return FromKernel(kernels::LaunchRandomInt4({.seed = *AsInt4(part)->seed,
                                               .weight = nibbles_ + first_row * (k_ / 8),
                                               .scale = scales_ + first_row * groups,
                                               .n = part.out,
                                               .k = k_,
                                               .group_columns = group_},
                                              {stream}));
}

absl::StatusOr<UploadTicket> LinearSource::UploadDense(std::vector<LinearWeights>& parts,
                                                       HostUpload& upload) const {
  absl::StatusOr<UploadTicket> last = UploadTicket{};
  int64_t first_row = 0;
  for (LinearWeights& part : parts) {
    bf16* const to = dense_ + first_row * k_;
    first_row += part.out;
    const auto* dense = std::get_if<DenseMatrix>(&part.values);
    if (dense != nullptr && dense->type == ElementType::kBfloat16) {
      last = upload.Start(to, dense->bytes.bytes());
    } else {
      if (absl::Status loaded = Load(part); !loaded.ok()) return loaded;
      std::vector<bf16> rows(static_cast<size_t>(part.out) * static_cast<size_t>(part.in));
      for (int32_t o = 0; o < part.out; ++o) DenseRow(part, o, rows.data() + int64_t{o} * part.in);
      last = upload.Start(to, Stored<bf16>(std::move(rows)).bytes());
    }
    if (!last.ok()) return last;
  }
  return last;
}

}  // namespace behemoth::worker::cuda
