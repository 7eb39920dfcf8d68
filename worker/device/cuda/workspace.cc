#include "worker/device/cuda/workspace.h"

#include <absl/strings/str_cat.h>

#include "kernels/all_reduce/all_reduce.h"

namespace behemoth::worker::cuda {

kernels::KvShape KvShapeOf(const BackendSpec& spec) {
  return {.kv_heads = spec.kv_heads,
          .head_dim = spec.head_dim,
          .type = spec.kv_type == KvType::kFp8 ? kernels::KvType::kE4m3 : kernels::KvType::kBf16};
}

kernels::AttentionShape AttentionShapeOf(const BackendSpec& spec) {
  return {.q_heads = spec.attention_heads, .kv = KvShapeOf(spec)};
}

namespace {

// What ranks share products with.
void TakeShared(Arena& arena, const BackendSpec& spec, Workspace& w) {
  const size_t partial = static_cast<size_t>(PaddedRows(spec.limits.max_step_tokens)) *
                         static_cast<size_t>(spec.hidden_size);
  const size_t logits = static_cast<size_t>(PaddedRows(spec.limits.max_sequences)) *
                        static_cast<size_t>(spec.limits.vocabulary_size);
  const size_t logits_part = logits / static_cast<size_t>(spec.group->size());
  w.partials.fill(arena.Take<kernels::bf16>(partial));
  w.logits_parts.fill(arena.Take<float>(logits_part));
  if (spec.group->peers() == nullptr) {
    w.all_logits = arena.Take<float>(logits);
    return;
  }
  w.partials[1] = arena.Take<kernels::bf16>(partial);
  w.logits_parts[1] = arena.Take<float>(logits_part);
  w.rank_flags = arena.Take<uint32_t>(kernels::kRankFlags);
}

}  // namespace

absl::StatusOr<Workspace> Workspace::Take(Arena& arena, const BackendSpec& spec,
                                          const std::vector<LinearPlan>& linears,
                                          const kernels::DeviceLimits& limits) {
  const RunnerLimits& runner = spec.limits;
  const kernels::AttentionShape attention = AttentionShapeOf(spec);
  const auto decode = kernels::SelectDecodeAttention(attention, limits);
  const auto prefill = kernels::SelectPrefillAttention(attention, limits);
  if (decode.blocks == 0 || prefill.shared_bytes == 0) {
    return absl::UnimplementedError(absl::StrCat(
        "no attention kernel of this version has ", spec.attention_heads, " query heads, ",
        spec.kv_heads, " KV heads and head_dim ", spec.head_dim, " on this GPU"));
  }
  Workspace w{};
  w.inputs = StepArrays::Take(arena, runner);
  w.slots = SlotArrays::Take(arena, runner);
  w.slots.repeats = arena.Take<uint32_t>(static_cast<size_t>(runner.max_sequences) *
                                         static_cast<size_t>(runner.context_tokens));
  w.results = ResultArrays::Take(arena, runner);
  absl::StatusOr<GemmScratch> gemm =
      GemmScratch::Take(arena, linears, limits, runner.max_step_tokens);
  if (!gemm.ok()) return gemm.status();
  w.gemm = *gemm;
  w.slot_token = arena.Take<int32_t>(static_cast<size_t>(runner.max_sequences));
  const size_t scratch = kernels::SampleScratchBytes(runner.vocabulary_size, runner.max_sequences);
  w.sample_scratch = arena.Take<uint32_t>(scratch / sizeof(uint32_t));
  w.inverse_frequency = arena.Take<float>(static_cast<size_t>(spec.head_dim / 2));
  w.kv_scales = arena.Take<float>(static_cast<size_t>(2 * spec.layers * spec.kv_heads));
  w.q = arena.Take<kernels::bf16>(static_cast<size_t>(PaddedRows(runner.max_step_tokens)) *
                                  static_cast<size_t>(spec.attention_heads * spec.head_dim));
  if (spec.group != nullptr) TakeShared(arena, spec, w);
  w.attention_bytes = kernels::DecodeWorkspaceBytes(attention, decode, kDecodeAttentionRows);
  w.attention = arena.Take<uint8_t>(w.attention_bytes);
  return w;
}

}  // namespace behemoth::worker::cuda
