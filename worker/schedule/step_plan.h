// One step's work and its outcome, as values: scheduler -> StepPlan -> runner -> StepResult ->
// scheduler. Neither side sees the other's objects.
//
// A plan may be made while the step before it still runs: the token that a row starts from can then
// be unknown to the host. Such a row carries kPendingToken, and the runner takes the token that it
// sampled for that row's slot in the step before.
#pragma once

#include <absl/time/time.h>

#include <memory>
#include <optional>
#include <vector>

#include "worker/ids.h"
#include "worker/sampling/sampling_params.h"
#include "worker/schedule/form.h"
#include "worker/schedule/generation.h"
#include "worker/schedule/mask_gate.h"

namespace behemoth::worker {

constexpr TokenId kPendingToken = -1;

// A sequence takes (or retakes, after a preemption) a slot: the runner builds the slot's sampling
// state from this before the step's rows.
struct SlotBinding {
  SlotId slot;
  int32_t sequence = 0;  // index within the request: part of the Philox key
  std::shared_ptr<const SamplingParams> sampling;
  std::vector<TokenId> prompt;  // for the repetition penalty
  std::vector<TokenId> output;  // generated before a preemption
};

// Blocks to copy before the rows run: a shared, part-filled block about to be written by one of
// its holders.
struct BlockCopy {
  BlockId from, to;
};

// Consecutive tokens of one sequence: a prefill chunk, or the one token of a decode.
struct StepRow {
  int32_t first_token = 0;  // into StepPlan::token_ids
  int32_t token_count = 0;  // >= 1
  int32_t position = 0;     // of the first token in the sequence
  int32_t first_block = 0;  // into StepPlan::block_ids: the table covering [0, position + count)
  int32_t block_count = 0;
  SlotId slot{};  // whose pending token kPendingToken means
  // Of the tokens, the last ones that are no prompt: sampled or forced. A backend computes such a
  // token in one way, whether it comes alone or in a row that catches up after a preemption.
  int32_t output_count = 0;
  // Return the logprobs of each token's successor in the prompt. The last one's successor lies
  // outside the row: next_token, or kPendingToken where the prompt ends here.
  bool prompt_logprobs = false;
  TokenId next_token = kPendingToken;
};

// The distribution after the last token of rows[row] goes to the sampler of `slot`. Sequences of
// one request that share a prompt are several samples of one row.
struct StepSample {
  int32_t row = 0;
  SlotId slot{};
  int32_t position = 0;  // of the sampled token in its sequence: part of the Philox key
  std::shared_ptr<const TokenMask> mask;  // what its form allows; null = it has none
  bool late_mask = false;                 // it has one, which comes by StepPlan::late_masks
};

struct StepPlan {
  StepNumber number = 0;
  std::vector<SlotBinding> bindings;
  std::vector<BlockCopy> copies;
  std::vector<TokenId> token_ids;
  std::vector<BlockId> block_ids;
  std::vector<StepRow> rows;  // decodes first
  std::vector<StepSample> samples;
  std::shared_ptr<MaskGate> late_masks;  // null: no sample has one
};

struct SampleResult {
  TokenId token = 0;
  bool finite = true;  // false: the row's logits held NaN or +inf; the token means nothing
  std::optional<TokenLogprobs> logprobs;
};

// Of one step on a device that can tell; zero where it cannot.
struct DeviceTimes {
  absl::Duration busy;  // from its first kernel to its last one's end
  absl::Duration idle;  // before it, since the last kernel of a step that it followed at once
};

struct StepResult {
  StepNumber number = 0;
  std::vector<SampleResult> samples;  // one per StepPlan::samples, same order
  // One element per row that asked, in row order: one entry per token that has a known successor.
  std::vector<std::vector<TokenLogprobs>> prompt_logprobs;
  DeviceTimes device;
};

}  // namespace behemoth::worker
