#include "worker/device/plan_check.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <vector>

namespace behemoth::worker {
namespace {

absl::Status BadPlan(const StepPlan& plan, const char* what) {
  return absl::InternalError(absl::StrCat("step ", plan.number, ": ", what));
}

bool IsWithin(int64_t begin, int64_t count, size_t size) {
  return begin >= 0 && count >= 0 && begin + count <= static_cast<int64_t>(size);
}

bool IsSlot(SlotId slot, const RunnerLimits& limits) {
  return static_cast<int32_t>(slot) >= 0 && static_cast<int32_t>(slot) < limits.max_sequences;
}

bool IsBlock(BlockId block, const RunnerLimits& limits) {
  return static_cast<int32_t>(block) >= 0 && static_cast<int32_t>(block) < limits.blocks;
}

bool AreTokens(const std::vector<TokenId>& ids, const RunnerLimits& limits) {
  return std::all_of(ids.begin(), ids.end(),
                     [&](TokenId id) { return id >= 0 && id < limits.vocabulary_size; });
}

bool AreTokens(const SamplingParams& p, const RunnerLimits& limits) {
  return AreTokens(p.allowed_ids, limits) && AreTokens(p.banned_ids, limits) &&
         AreTokens(p.stop_ids, limits) && AreTokens(p.dry.breaker_ids, limits) &&
         std::all_of(p.dry.spanning_breakers.begin(), p.dry.spanning_breakers.end(),
                     [&](const SpanningBreaker& breaker) {
                       return AreTokens(breaker.heads, limits) && AreTokens(breaker.tail, limits);
                     }) &&
         std::all_of(p.banned_sequences.begin(), p.banned_sequences.end(),
                     [&](const std::vector<TokenId>& ids) { return AreTokens(ids, limits); });
}

absl::Status CheckBinding(const StepPlan& plan, const SlotBinding& binding,
                          const RunnerLimits& limits) {
  if (!IsSlot(binding.slot, limits)) return BadPlan(plan, "a binding of no slot");
  if (binding.sampling == nullptr) return BadPlan(plan, "a binding without parameters");
  const SamplingParams& p = *binding.sampling;
  const bool bias_known = std::all_of(
      p.logit_bias.begin(), p.logit_bias.end(),
      [&](const TokenBias& bias) { return bias.id >= 0 && bias.id < limits.vocabulary_size; });
  if (!bias_known || !AreTokens(binding.prompt, limits) || !AreTokens(binding.output, limits) ||
      !AreTokens(p, limits)) {
    return BadPlan(plan, "a binding with a token outside the vocabulary");
  }
  return absl::OkStatus();
}

absl::Status CheckRow(const StepPlan& plan, const StepRow& row, const RunnerLimits& limits) {
  const int64_t end = int64_t{row.position} + row.token_count;
  const bool fits = IsWithin(row.first_token, row.token_count, plan.token_ids.size()) &&
                    IsWithin(row.first_block, row.block_count, plan.block_ids.size()) &&
                    IsSlot(row.slot, limits) && row.position >= 0 && row.token_count > 0 &&
                    end <= limits.context_tokens &&
                    end <= int64_t{row.block_count} * limits.tokens_per_block &&
                    row.output_count >= 0 && row.output_count <= row.token_count;
  if (!fits) return BadPlan(plan, "a row outside the plan's tokens, blocks, slots or the context");
  const BlockId* table = plan.block_ids.data() + row.first_block;
  const bool known_blocks = std::all_of(table, table + row.block_count,
                                        [&](BlockId block) { return IsBlock(block, limits); });
  return known_blocks ? absl::OkStatus() : BadPlan(plan, "a block outside the pool");
}

}  // namespace

absl::Status CheckPlan(const StepPlan& plan, const RunnerLimits& limits) {
  for (const SlotBinding& binding : plan.bindings) {
    absl::Status checked = CheckBinding(plan, binding, limits);
    if (!checked.ok()) return checked;
  }
  for (const BlockCopy& copy : plan.copies) {
    if (!IsBlock(copy.from, limits) || !IsBlock(copy.to, limits)) {
      return BadPlan(plan, "a copy of no block");
    }
  }
  const auto sequences = static_cast<size_t>(limits.max_sequences);
  if (plan.token_ids.size() > static_cast<size_t>(limits.max_step_tokens) ||
      plan.samples.size() > sequences || plan.bindings.size() > sequences ||
      plan.copies.size() > sequences) {
    return BadPlan(plan, "more tokens, samples, bindings or copies than the limits");
  }
  int32_t next_token = 0;
  for (const StepRow& row : plan.rows) {
    if (row.first_token != next_token) return BadPlan(plan, "rows that do not follow each other");
    absl::Status checked = CheckRow(plan, row, limits);
    if (!checked.ok()) return checked;
    next_token += row.token_count;
  }
  if (next_token != static_cast<int32_t>(plan.token_ids.size())) {
    return BadPlan(plan, "tokens of no row");
  }
  const bool known_tokens = std::all_of(
      plan.token_ids.begin(), plan.token_ids.end(),
      [&](TokenId id) { return id == kPendingToken || (id >= 0 && id < limits.vocabulary_size); });
  if (!known_tokens) return BadPlan(plan, "a token outside the vocabulary");
  for (const StepSample& sample : plan.samples) {
    if (!IsWithin(sample.row, 1, plan.rows.size())) return BadPlan(plan, "sample of no row");
    if (!IsSlot(sample.slot, limits)) return BadPlan(plan, "sample of no slot");
    const size_t words = (static_cast<size_t>(limits.vocabulary_size) + 31) / 32;
    if (sample.mask && sample.mask->size() != words) {
      return BadPlan(plan, "a mask that is not of this vocabulary");
    }
    if (sample.late_mask && (sample.mask || !plan.late_masks)) {
      return BadPlan(plan, "a late mask that never comes");
    }
  }
  return absl::OkStatus();
}

}  // namespace behemoth::worker
