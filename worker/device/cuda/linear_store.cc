#include "worker/device/cuda/linear_store.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <utility>
#include <variant>

#include "kernels/fused/fused.h"
#include "worker/device/cuda/cuda_status.h"

namespace behemoth::worker::cuda {

using kernels::KernelError;
using kernels::WeightKind;

int32_t PaddedRows(int32_t rows) {
  constexpr int32_t kTile = kernels::kPrefillTileTokens;
  return rows <= kernels::kMaxDecodeRows ? kernels::PaddedRows(rows)
                                         : (rows + kTile - 1) / kTile * kTile;
}

uint64_t LinearPlan::bytes() const {
  return Arena::Rounded(static_cast<size_t>(kernels::PackedBytes(kind, n, k))) +
         (gathers ? Arena::Rounded(static_cast<size_t>(k) * sizeof(int32_t)) : 0);
}

absl::StatusOr<LinearPlan> PlanLinear(const LinearShape& shape) {
  LinearPlan plan{.k = shape.in, .interleaved = shape.use == LinearUse::kGateUp};
  const std::optional<LinearScheme>& first = shape.parts.front().scheme;
  bool alike = first.has_value() && shape.one_input_order, zero_points = false;
  for (const ProjectionShape& part : shape.parts) {
    plan.n += part.out;
    alike = alike && part.scheme && part.scheme->group_size == first->group_size &&
            part.scheme->uses_g_idx == first->uses_g_idx;
    zero_points |= part.scheme && !part.scheme->symmetric;
  }
  const int32_t group =
      alike ? KernelGroup(first->group_size < 0 ? shape.in : first->group_size, shape.in) : 0;
  plan.kind = group == 0 ? WeightKind::kBf16 : Int4Kind(group, zero_points);
  plan.gathers = group != 0 && first->uses_g_idx;
  const std::string& module = shape.parts.front().module;
  const int32_t unit = kernels::UnitColumns(plan.kind);
  if (plan.k % unit != 0) {
    return absl::UnimplementedError(absl::StrCat(
        module, ": ", plan.k, " inputs; the cuda backend computes multiples of ", unit));
  }
  if (plan.interleaved && plan.n % 16 != 0) {
    return absl::UnimplementedError(absl::StrCat(
        module, ": ", plan.n / 2, " outputs; the cuda backend computes multiples of 8"));
  }
  return plan;
}

absl::StatusOr<GemmScratch> GemmScratch::Take(Arena& arena, const std::vector<LinearPlan>& plans,
                                              const kernels::DeviceLimits& limits,
                                              int32_t max_rows) {
  size_t partials = 0, counters = 0;
  int32_t gathered = 0;
  for (const LinearPlan& plan : plans) {
    const auto narrow =
        kernels::SelectDecodeGemm({kernels::kMaxDecodeRows, plan.n, plan.k, plan.kind}, limits);
    const auto wide = kernels::SelectPrefillGemm({max_rows, plan.n, plan.k, plan.kind}, limits);
    if (!narrow || !wide) {
      return absl::UnimplementedError(absl::StrCat("no kernel of this version multiplies ", plan.k,
                                                   " inputs by ", plan.n, " outputs on this GPU"));
    }
    partials = std::max({partials, kernels::PartialsBytes(*narrow), kernels::PartialsBytes(*wide)});
    counters = std::max(counters, kernels::CountersBytes(*narrow));
    if (plan.gathers) gathered = std::max(gathered, plan.k);
  }
  GemmScratch scratch;
  scratch.partials = arena.Take<float>(partials / sizeof(float));
  scratch.counters = arena.Take<uint32_t>(counters / sizeof(uint32_t));
  scratch.counters_bytes = counters;
  if (gathered > 0) {
    scratch.gathered = arena.Take<kernels::bf16>(static_cast<size_t>(PaddedRows(max_rows)) *
                                                 static_cast<size_t>(gathered));
  }
  return scratch;
}

// ---- Packing ------------------------------------------------------------------------------------

size_t LinearStore::StagingBytes(const std::vector<LinearWeights>& parts) {
  Arena measure;
  LinearSource::Take(measure, parts);
  return measure.used();
}

absl::StatusOr<void*> LinearStore::TakeWeight(WeightKind kind, int32_t n, int32_t k) {
  const size_t bytes = static_cast<size_t>(kernels::PackedBytes(kind, n, k));
  void* const weight = weights_->Take<uint8_t>(bytes);
  if (weight == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat(bytes, " bytes of packed weights are more than the memory plan foresaw"));
  }
  return weight;
}

absl::StatusOr<LinearHandle> LinearStore::Keep(const Packed& packed) {
  linears_.push_back(packed);
  return static_cast<LinearHandle>(linears_.size() - 1);
}

absl::StatusOr<LinearHandle> LinearStore::Add(std::vector<LinearWeights> parts, LinearUse use,
                                              void* staging, HostUpload& upload,
                                              CUstream_st* stream) {
  Arena arena(staging, StagingBytes(parts));
  const LinearSource source = LinearSource::Take(arena, parts);
  Packed packed{.kind = source.kind(), .n = source.n(), .k = source.k(), .permutation = nullptr};
  const absl::StatusOr<void*> weight = TakeWeight(packed.kind, packed.n, packed.k);
  if (!weight.ok()) return weight.status();
  packed.weight = *weight;
  if (!source.permutation().empty()) {
    const auto order = source.permutation();
    int32_t* const to = weights_->Take<int32_t>(order.size());
    if (to == nullptr || scratch_.gathered == nullptr) {
      return absl::ResourceExhaustedError(
          "an order of inputs that the memory plan did not foresee");
    }
    const Stored<int32_t> kept(std::vector<int32_t>(order.begin(), order.end()));
    absl::Status sent = upload.Start(to, kept.bytes()).status();
    if (!sent.ok()) return sent;
    packed.permutation = to;
  }
  const absl::StatusOr<UploadTicket> uploaded = source.Upload(parts, upload, stream);
  if (!uploaded.ok()) return uploaded.status();
  if (absl::Status before = PackPending(upload, stream); !before.ok()) return before;
  pending_ = {source, use == LinearUse::kGateUp, packed.weight, *uploaded};
  return Keep(packed);
}

absl::Status LinearStore::PackPending(HostUpload& upload, CUstream_st* stream) {
  if (!pending_) return absl::OkStatus();
  const Pending pending = *std::exchange(pending_, std::nullopt);
  if (absl::Status joined = upload.Join(pending.uploaded); !joined.ok()) return joined;
  packing_time_.Start(stream);
  absl::Status packed = pending.source.Pack(pending.interleave, pending.packed, stream);
  packing_time_.Stop(stream);
  return packed;
}

absl::StatusOr<LinearHandle> LinearStore::AddTable(const kernels::bf16* table, int32_t rows,
                                                   int32_t cols, CUstream_st* stream) {
  const absl::StatusOr<void*> weight = TakeWeight(WeightKind::kBf16, rows, cols);
  if (!weight.ok()) return weight.status();
  const kernels::Bf16Source source{.weight = table, .n = rows, .k = cols};
  absl::Status packed = FromKernel(kernels::LaunchRepackBf16(source, *weight, {stream}));
  if (!packed.ok()) return packed;
  return Keep({WeightKind::kBf16, rows, cols, *weight, nullptr});
}

// ---- Multiplying --------------------------------------------------------------------------------

KernelError LinearStore::Multiply(LinearHandle handle, const Product& product,
                                  const kernels::LaunchContext& context) const {
  const Packed& weight = linears_[static_cast<size_t>(handle)];
  kernels::LaunchContext next = context;
  const auto* act = static_cast<const kernels::bf16*>(product.act);
  if (weight.permutation != nullptr) {
    const KernelError error =
        kernels::LaunchPermuteColumns({.in = act,
                                       .permutation = weight.permutation,
                                       .out = scratch_.gathered,
                                       .packed_rows = PaddedRows(product.rows),
                                       .columns = weight.k},
                                      next);
    if (!error.ok()) return error;
    act = scratch_.gathered;
    next.overlap_predecessor = true;
  }
  kernels::DecodeGemmArgs args;
  args.weight = weight.weight;
  args.act = act;
  args.out = product.out;
  args.residual = static_cast<const kernels::bf16*>(product.out);
  args.partials = scratch_.partials;
  args.counters = scratch_.counters;
  args.m = product.rows;
  // Logits are read as whole 16-byte pieces: a vocabulary is padded with the packing's zero rows.
  const bool logits = product.output == kernels::GemmOutput::kRowMajorFloat;
  args.n = logits ? (weight.n + 7) / 8 * 8 : weight.n;
  args.k = weight.k;
  args.epilogue = product.epilogue;
  args.output = product.output;
  return LaunchGemm(weight, args, next);
}

KernelError LinearStore::LaunchGemm(const Packed& weight, const kernels::DecodeGemmArgs& args,
                                    const kernels::LaunchContext& context) const {
  constexpr KernelError kNoKernel = {kernels::kInvalidArgument, "no GEMM for this shape"};
  if (args.m <= kernels::kMaxDecodeRows) {
    const auto config = kernels::SelectDecodeGemm({args.m, args.n, args.k, weight.kind}, limits_);
    return config ? kernels::LaunchDecodeGemm(*config, weight.kind, args, context) : kNoKernel;
  }
  const auto config = kernels::SelectPrefillGemm({args.m, args.n, args.k, weight.kind}, limits_);
  return config ? kernels::LaunchPrefillGemm(*config, weight.kind, args, context) : kNoKernel;
}

}  // namespace behemoth::worker::cuda
