#include "worker/device/cpu/step_inputs.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <cmath>

namespace behemoth::worker::cpu {

absl::Status StepInputs::Load(const StepPlan& plan, const BackendSpec& spec,
                              const std::vector<SamplerState>& slots) {
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
    const StepRow& row = plan.rows[sample.row];
    passes[0].push_back({.token = row.first_token + row.token_count - 1,
                         .result = static_cast<int32_t>(i),
                         .slot = sample.slot,
                         .position = sample.position,
                         .mask = sample.mask});
  }
  return absl::OkStatus();
}

absl::Status StepInputs::LoadRow(const StepPlan& plan, const StepRow& row, const BackendSpec& spec,
                                 const std::vector<SamplerState>& slots) {
  const BlockId* table = block_ids.data() + row.first_block;
  const SamplerState& slot = slots[static_cast<size_t>(row.slot)];
  for (int32_t i = 0; i < row.token_count; ++i) {
    const TokenId planned = plan.token_ids[row.first_token + i];
    const TokenId token = planned == kPendingToken ? slot.last_token() : planned;
    if (token < 0) {
      return absl::InternalError(
          absl::StrCat("step ", plan.number, ": a pending token of a slot that has none"));
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
