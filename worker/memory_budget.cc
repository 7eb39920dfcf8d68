#include "worker/memory_budget.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include <algorithm>
#include <limits>
#include <utility>

namespace behemoth::worker {
namespace {

std::string MiB(uint64_t bytes) { return absl::StrCat((bytes + (1 << 20) - 1) >> 20, " MiB"); }

}  // namespace

std::string MemoryPlan::Describe() const {
  const int64_t kv_tokens = int64_t{blocks} * needs.tokens_per_block;
  return absl::StrFormat(
      "weights %s + activations %s + workspace %s + KV %d blocks x %d KiB = %s of %s usable: "
      "%d KV tokens, %d chats of %d",
      MiB(needs.weight_bytes), MiB(needs.activation_bytes), MiB(needs.workspace_bytes), blocks,
      needs.block_bytes >> 10, MiB(planned_bytes()), MiB(usable_bytes), kv_tokens,
      blocks / needs.blocks_for_one_context, context_tokens);
}

absl::StatusOr<MemoryPlan> PlanMemory(const ModelNeeds& needs, int32_t context_tokens,
                                      int32_t max_sequences, const MemoryLimits& limits,
                                      int32_t* fitting_tokens) {
  MemoryPlan plan{.needs = needs, .context_tokens = context_tokens};
  const uint64_t held = limits.total_bytes - std::min(limits.total_bytes, limits.available_bytes);
  const auto share =
      static_cast<uint64_t>(limits.utilization * static_cast<double>(limits.total_bytes));
  plan.usable_bytes = share - std::min(share, held);
  if (limits.limit_bytes > 0) plan.usable_bytes = std::min(plan.usable_bytes, limits.limit_bytes);

  const uint64_t fixed = needs.fixed_bytes();
  uint64_t kv_bytes = plan.usable_bytes - std::min(plan.usable_bytes, fixed);
  if (limits.kv_bytes > 0) kv_bytes = std::min(kv_bytes, limits.kv_bytes);
  const uint64_t useful = uint64_t{static_cast<uint32_t>(needs.blocks_for_one_context)} *
                          static_cast<uint32_t>(max_sequences);
  const uint64_t most = std::min<uint64_t>(useful, std::numeric_limits<int32_t>::max());
  plan.blocks = static_cast<int32_t>(std::min(kv_bytes / needs.block_bytes, most));
  if (plan.blocks >= needs.blocks_for_one_context) return plan;

  if (fitting_tokens != nullptr) *fitting_tokens = plan.blocks * needs.tokens_per_block;
  return absl::ResourceExhaustedError(absl::StrCat(
      "memory: weights ", MiB(needs.weight_bytes), " + activations ", MiB(needs.activation_bytes),
      " + workspace ", MiB(needs.workspace_bytes), " + one context of ", context_tokens, " tokens ",
      MiB(needs.block_bytes * static_cast<uint32_t>(needs.blocks_for_one_context)), " exceed ",
      MiB(plan.usable_bytes), " usable of ", MiB(limits.total_bytes),
      limits.kv_bytes > 0 ? absl::StrCat(", KV limited to ", MiB(limits.kv_bytes)) : "",
      "; a context of ", plan.blocks * needs.tokens_per_block, " would fit"));
}

absl::StatusOr<MemoryPlan> PlanMemory(const ModelNeeds& needs, int32_t context_tokens,
                                      int32_t max_sequences, std::span<const MemoryLimits> ranks,
                                      int32_t* fitting_tokens) {
  absl::StatusOr<MemoryPlan> smallest = absl::InternalError("no ranks to plan for");
  int32_t least_fitting = std::numeric_limits<int32_t>::max();
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    int32_t fitting = 0;
    absl::StatusOr<MemoryPlan> plan =
        PlanMemory(needs, context_tokens, max_sequences, ranks[rank], &fitting);
    if (!plan.ok()) {
      least_fitting = std::min(least_fitting, fitting);
      if (ranks.size() > 1) {
        plan = absl::Status(plan.status().code(),
                            absl::StrCat("rank ", rank, ": ", plan.status().message()));
      }
    }
    const bool first = rank == 0;
    const bool smaller = smallest.ok() && (!plan.ok() || plan->blocks < smallest->blocks);
    if (first || smaller) smallest = std::move(plan);
  }
  if (!smallest.ok() && fitting_tokens != nullptr) *fitting_tokens = least_fitting;
  return smallest;
}

}  // namespace behemoth::worker
