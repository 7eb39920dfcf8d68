#include <algorithm>

#include "proto/support/check.h"
#include "worker/schedule/scheduler.h"

namespace behemoth::worker {
namespace {

// Of the tokens that a form allows, at least one is not excluded by the request's own fields: what
// is left then, if nothing could be sampled, is the model's fault.
bool LeavesAToken(const TokenMask& mask, const SamplingParams& sampling) {
  TokenMask left = mask;
  const auto word = [](TokenId id) { return static_cast<size_t>(id) / 32; };
  const auto bit = [](TokenId id) { return uint32_t{1} << (id % 32); };
  if (!sampling.allowed_ids.empty()) {
    TokenMask allowed(mask.size(), 0);
    for (const TokenId id : sampling.allowed_ids) allowed[word(id)] |= bit(id);
    for (size_t i = 0; i < left.size(); ++i) left[i] &= allowed[i];
  }
  for (const TokenId id : sampling.banned_ids) left[word(id)] &= ~bit(id);
  for (const TokenBias& bias : sampling.logit_bias) {
    if (bias.bias <= kBiasThatBans) left[word(bias.id)] &= ~bit(bias.id);
  }
  return std::any_of(left.begin(), left.end(), [](uint32_t ids) { return ids != 0; });
}

}  // namespace

void Scheduler::Commit(const StepResult& result, absl::Time now) {
  BEHEMOTH_CHECK(steps_in_flight_ > 0, "nothing to commit");
  PlannedStep& step = steps_[(next_step_ + steps_.size() - steps_in_flight_) % steps_.size()];
  BEHEMOTH_CHECK(result.number == step.plan.number, "steps are committed in order");
  BEHEMOTH_CHECK(result.samples.size() == step.samples.size(), "one result per sample");

  size_t asked = 0;
  for (const PlannedRow& row : step.rows) {
    Request* request = row.sequence->request;
    --request->rows_in_flight;
    if (row.prompt_logprobs) {
      BEHEMOTH_CHECK(asked < result.prompt_logprobs.size(), "prompt logprobs are missing");
      KeepPromptLogprobs(request, row.position, result.prompt_logprobs[asked++]);
    }
    // A sequence that was preempted since has other blocks now, or none.
    if (row.sequence->residence == row.residence) CacheFullBlocks(*row.sequence, row.end);
    // Who shares the leader's blocks moves over to known ones with it: a holder of a cached block
    // holds its cached parents.
    if (row.position >= request->prompt_tokens()) continue;
    for (Sequence& sibling : request->sequences) {
      if (sibling.shares_prompt) CacheFullBlocks(sibling, row.end);
    }
  }
  for (size_t i = 0; i < step.samples.size(); ++i) {
    Sequence& sequence = *step.samples[i];
    // Steps are committed in order: what a rewind has overtaken comes before what followed it.
    if (sequence.voided > 0) {
      --sequence.voided;
      continue;
    }
    --sequence.pending;
    // The one wasted row of a sequence that ended while this step was under way.
    if (!sequence.ended()) AcceptToken(sequence, result.samples[i], now);
  }

  const absl::Duration duration = now - std::max(step.planned_at, committed_at_);
  chunk_size_.Observe(step.load, duration);
  observer_->OnStep({.rows = static_cast<int32_t>(step.plan.rows.size()),
                     .tokens = static_cast<int32_t>(step.plan.token_ids.size()),
                     .prompt_tokens = step.load.prompt_tokens,
                     .samples = static_cast<int32_t>(step.samples.size()),
                     .device = result.device},
                    duration);
  committed_at_ = now;
  ++committed_;
  --steps_in_flight_;
}

void Scheduler::CacheFullBlocks(Sequence& sequence, int32_t computed) {
  const int32_t full = computed / config_.tokens_per_block;
  while (sequence.chainable && sequence.chained_blocks < full) {
    const size_t index = static_cast<size_t>(sequence.chained_blocks);
    const auto tokens = std::span(sequence.tokens)
                            .subspan(index * config_.tokens_per_block, config_.tokens_per_block);
    const auto inserted = cache_.Insert(sequence.chain, tokens, sequence.blocks[index]);
    sequence.blocks[index] = inserted.block;
    sequence.chain = inserted.key;
    sequence.chainable = inserted.chained;
    if (inserted.chained) ++sequence.chained_blocks;
  }
}

// Rows may come twice, when a preempted prefill is done again: only what is new is kept.
void Scheduler::KeepPromptLogprobs(Request* request, int32_t position,
                                   std::vector<TokenLogprobs> logprobs) {
  if (request->prompt_logprobs_sent) return;
  const size_t prompt = request->spec.prompt.size();
  for (size_t i = 0; i < logprobs.size(); ++i) {
    const size_t successor = static_cast<size_t>(position) + i + 1;
    if (successor < prompt && successor == request->prompt_logprobs.size()) {
      request->prompt_logprobs.push_back(std::move(logprobs[i]));
    }
  }
}

void Scheduler::AcceptToken(Sequence& sequence, const SampleResult& sample, absl::Time now) {
  Request* request = sequence.request;
  if (!sample.finite) {
    if (sequence.form != nullptr && sequence.form->state() == FormState::kReady &&
        !LeavesAToken(*sequence.form->mask(), *request->sampling)) {
      return Abort(request, absl::InvalidArgumentError(
                                "structure: allowed_ids, banned_ids and logit_bias leave none of "
                                "the tokens that may come next"));
    }
    observer_->OnNonFinite();
    return Abort(request, absl::InternalError(
                              sequence.form == nullptr
                                  ? "the model's logits are not finite"
                                  : "no token is left that structure, masks and bias allow, or the "
                                    "model's logits are not finite"));
  }
  const SamplingParams& sampling = *request->sampling;
  const int32_t before = sequence.known() - request->prompt_tokens();
  sequence.tokens.push_back(sample.token);
  // The bans were of this token's position: the next one is sampled without them.
  if (sequence.bound_to_bans) sequence.needs_binding = true;
  const bool stops = before >= sampling.min_tokens &&
                     std::find(sampling.stop_ids.begin(), sampling.stop_ids.end(), sample.token) !=
                         sampling.stop_ids.end();
  if (!stops || request->spec.include_stop_id) {
    TokensEvent event{.ids = {sample.token}};
    if (sample.logprobs) event.logprobs.push_back(*sample.logprobs);
    EmitTokens(sequence, std::move(event), now);
  } else if (sequence.index == 0 && request->spec.prompt_logprobs &&
             !request->prompt_logprobs_sent) {
    EmitTokens(sequence, {}, now);
  }
  if (stops) {
    Finish(sequence, FinishReason::kStop, sample.token, now);
  } else if (before + 1 >= request->spec.max_tokens) {
    Finish(sequence, FinishReason::kLength, std::nullopt, now);
  } else {
    if (sequence.form != nullptr) AdvanceForm(sequence, sample.token, now);
    if (!sequence.forced.empty() && sequence.pending == 0) AppendForced(sequence, now);
  }
}

}  // namespace behemoth::worker
