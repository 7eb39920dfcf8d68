#include "worker/device/cpu/step_inputs.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <cmath>

namespace behemoth::worker::cpu {
namespace {

absl::Status BadPlan(const StepPlan& plan, const char* what) {
  return absl::InternalError(absl::StrCat("step ", plan.number, ": ", what));
}

bool IsWithin(int64_t begin, int64_t count, size_t size) {
  return begin >= 0 && count >= 0 && begin + count <= static_cast<int64_t>(size);
}

}  // namespace

absl::Status CheckBindings(const StepPlan& plan, const RunnerLimits& limits) {
  const auto all_tokens = [&](const std::vector<TokenId>& ids) {
    return std::all_of(ids.begin(), ids.end(),
                       [&](TokenId id) { return id >= 0 && id < limits.vocabulary_size; });
  };
  const auto is_block = [&](BlockId block) {
    return static_cast<int32_t>(block) >= 0 && static_cast<int32_t>(block) < limits.blocks;
  };
  for (const SlotBinding& binding : plan.bindings) {
    const int32_t slot = static_cast<int32_t>(binding.slot);
    if (slot < 0 || slot >= limits.max_sequences) return BadPlan(plan, "a binding of no slot");
    if (binding.sampling == nullptr) return BadPlan(plan, "a binding without parameters");
    const SamplingParams& p = *binding.sampling;
    const bool bias_known = std::all_of(
        p.logit_bias.begin(), p.logit_bias.end(),
        [&](const TokenBias& bias) { return bias.id >= 0 && bias.id < limits.vocabulary_size; });
    if (!bias_known || !all_tokens(binding.prompt) || !all_tokens(binding.output) ||
        !all_tokens(p.allowed_ids) || !all_tokens(p.banned_ids) || !all_tokens(p.stop_ids)) {
      return BadPlan(plan, "a binding with a token outside the vocabulary");
    }
  }
  for (const BlockCopy& copy : plan.copies) {
    if (!is_block(copy.from) || !is_block(copy.to)) return BadPlan(plan, "a copy of no block");
  }
  return absl::OkStatus();
}

absl::Status StepInputs::Load(const StepPlan& plan, const BackendSpec& spec,
                              const std::vector<SamplerState>& slots) {
  if (plan.token_ids.size() > static_cast<size_t>(spec.limits.max_step_tokens) ||
      plan.samples.size() > slots.size()) {
    return BadPlan(plan, "more tokens or samples than the limits");
  }
  token_ids.clear();
  places.clear();
  cosines.clear();
  sines.clear();
  passes.assign(1, {});
  block_ids = plan.block_ids;
  result = {};
  result.number = plan.number;
  result.samples.resize(plan.samples.size());
  for (const StepRow& row : plan.rows) {
    absl::Status loaded = LoadRow(plan, row, spec, slots);
    if (!loaded.ok()) return loaded;
  }
  for (size_t i = 0; i < plan.samples.size(); ++i) {
    const StepSample& sample = plan.samples[i];
    if (!IsWithin(sample.row, 1, plan.rows.size())) return BadPlan(plan, "sample of no row");
    if (!IsWithin(static_cast<int32_t>(sample.slot), 1, slots.size())) {
      return BadPlan(plan, "sample of no slot");
    }
    const StepRow& row = plan.rows[sample.row];
    passes[0].push_back({.token = row.first_token + row.token_count - 1,
                         .result = static_cast<int32_t>(i),
                         .slot = sample.slot,
                         .position = sample.position});
  }
  return absl::OkStatus();
}

absl::Status StepInputs::LoadRow(const StepPlan& plan, const StepRow& row, const BackendSpec& spec,
                                 const std::vector<SamplerState>& slots) {
  const int64_t end = int64_t{row.position} + row.token_count;
  const bool fits = row.first_token == static_cast<int32_t>(token_ids.size()) &&
                    IsWithin(row.first_token, row.token_count, plan.token_ids.size()) &&
                    IsWithin(row.first_block, row.block_count, plan.block_ids.size()) &&
                    IsWithin(static_cast<int32_t>(row.slot), 1, slots.size()) &&
                    row.position >= 0 && row.token_count > 0 && end <= spec.limits.context_tokens &&
                    end <= int64_t{row.block_count} * kTokensPerBlock;
  if (!fits) return BadPlan(plan, "a row outside the plan's tokens, blocks, slots or the context");
  const BlockId* table = block_ids.data() + row.first_block;
  const bool known_blocks = std::all_of(table, table + row.block_count, [&](BlockId block) {
    return IsWithin(static_cast<int32_t>(block), 1, static_cast<size_t>(spec.limits.blocks));
  });
  if (!known_blocks) return BadPlan(plan, "a block outside the pool");
  const SamplerState& slot = slots[static_cast<size_t>(row.slot)];
  for (int32_t i = 0; i < row.token_count; ++i) {
    const TokenId planned = plan.token_ids[row.first_token + i];
    const TokenId token = planned == kPendingToken ? slot.last_token() : planned;
    if (!IsWithin(token, 1, static_cast<size_t>(spec.limits.vocabulary_size))) {
      return BadPlan(plan, "a token outside the vocabulary");
    }
    token_ids.push_back(token);
    places.push_back({row.position + i, table});
    Rotate(row.position + i, spec.rope_inverse_frequencies);
  }
  if (row.prompt_logprobs) AddPromptScores(plan, row, spec.limits.max_sequences, slot);
  return absl::OkStatus();
}

// The reference forms the angle in float.
void StepInputs::Rotate(int32_t position, const std::vector<float>& inverse_frequencies) {
  for (const float frequency : inverse_frequencies) {
    const float angle = static_cast<float>(position) * frequency;
    cosines.push_back(std::cos(angle));
    sines.push_back(std::sin(angle));
  }
}

void StepInputs::AddPromptScores(const StepPlan& plan, const StepRow& row, int32_t max_rows,
                                 const SamplerState& slot) {
  const int32_t prompt = static_cast<int32_t>(result.prompt_logprobs.size());
  const int32_t count = row.token_count - (row.next_token == kPendingToken ? 1 : 0);
  result.prompt_logprobs.emplace_back(count);
  for (int32_t i = 0; i < count; ++i) {
    const bool last = i + 1 == row.token_count;
    if (passes.size() == 1 || passes.back().size() == static_cast<size_t>(max_rows)) {
      passes.emplace_back();
    }
    passes.back().push_back(
        {.token = row.first_token + i,
         .result = i,
         .prompt = prompt,
         .successor = last ? row.next_token : plan.token_ids[row.first_token + i + 1],
         .top_logprobs = std::max(0, slot.params().top_logprobs)});
  }
}

}  // namespace behemoth::worker::cpu
