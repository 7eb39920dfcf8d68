#include <algorithm>

#include "proto/support/check.h"
#include "worker/schedule/scheduler.h"

namespace behemoth::worker {

const StepPlan& Scheduler::PlanStep(absl::Time now) {
  BEHEMOTH_CHECK(steps_in_flight_ < config_.pipeline_depth, "commit the oldest step first");
  BEHEMOTH_CHECK(masked_late_ == nullptr, "open the masks first");
  PurgeRetired();
  ExpireDeadlines(now);
  SettleForms(now);

  planning_ = &steps_[next_step_];
  StepPlan& plan = planning_->plan;
  plan.bindings.clear();
  plan.copies.clear();
  plan.token_ids.clear();
  plan.block_ids.clear();
  plan.rows.clear();
  plan.samples.clear();
  plan.late_masks.reset();
  planning_->rows.clear();
  planning_->samples.clear();
  planning_->load = {};

  int32_t budget = config_.max_step_tokens;
  SecureRunningBlocks();
  PlanDecodes(&budget);
  PlanPrefills(budget, now);
  for (BlockId block : copy_sources_) cache_.Release(block);
  copy_sources_.clear();
  ReportProgress(now);

  if (plan.rows.empty()) return plan;
  plan.number = ++last_number_;
  planning_->planned_at = now;
  next_step_ = (next_step_ + 1) % steps_.size();
  ++steps_in_flight_;
  return plan;
}

void Scheduler::PurgeRetired() {
  std::erase_if(unsettled_forms_, [](const Sequence* sequence) { return sequence->ended(); });
  std::erase_if(retired_, [](const auto& request) { return request->rows_in_flight == 0; });
}

void Scheduler::ExpireDeadlines(absl::Time now) {
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    Abort(deadlines_.begin()->second, absl::DeadlineExceededError("the request's time is over"));
  }
  while (!parked_.empty() && parked_.begin()->first <= now) {
    Close(parked_.begin()->second, absl::OkStatus());
  }
}

// Forms are asked here alone, so that a mask that comes meanwhile changes nothing in this step.
void Scheduler::SettleForms(absl::Time now) {
  std::erase_if(unsettled_forms_, [&](Sequence* sequence) {
    if (sequence->ended()) return true;
    const FormState state = sequence->form->state();
    if (state == FormState::kWorking) return false;
    sequence->form_ready = true;
    if (state == FormState::kComplete) {
      Finish(*sequence, FinishReason::kStop, std::nullopt, now);
    } else if (state == FormState::kFailed) {
      Abort(sequence->request,
            absl::InvalidArgumentError("structure: the text has left it, nothing can follow, or "
                                       "following it takes too long"));
    }
    return true;
  });
}

absl::Time Scheduler::masks_due() const {
  absl::Time due = absl::InfinitePast();
  if (steps_in_flight_ > 0 && masked_late_ == nullptr) return due;  // the device is busy
  for (const Sequence* sequence : running_) {
    const bool waits = sequence->form != nullptr && !sequence->form_ready &&
                       (sequence->pending > 0) == (masked_late_ != nullptr);
    if (waits && sequence->form->state() == FormState::kWorking) {
      due = std::max(due, sequence->form_asked_at + kMaskPatience);
    }
  }
  return due;
}

void Scheduler::OpenMasks() {
  if (masked_late_ == nullptr) return;
  MaskGate::Masks masks;
  const StepPlan& plan = masked_late_->plan;
  for (size_t i = 0; i < plan.samples.size(); ++i) {
    if (plan.samples[i].late_mask) masks.push_back(LateMask(*masked_late_->samples[i]));
  }
  plan.late_masks->Open(std::move(masks));
  masked_late_ = nullptr;
}

std::shared_ptr<const TokenMask> Scheduler::LateMask(Sequence& sequence) {
  // Rewound meanwhile, or ended.
  if (sequence.pending == 0 || sequence.ended()) return nullptr;
  const FormState state = sequence.form->state();
  if (state == FormState::kReady) return sequence.form->mask();
  if (state == FormState::kWorking) {
    sequence.voided += std::exchange(sequence.pending, 0);
    Requeue(sequence);
  }
  return nullptr;  // complete or failed: the next PlanStep ends it
}

void Scheduler::ReportProgress(absl::Time now) {
  if (now - progress_checked_at_ < config_.progress_interval / 4) return;
  progress_checked_at_ = now;
  std::vector<uint64_t> waiting;
  for (const auto& [id, request] : requests_) {
    if (request->sequences[0].state == SequenceState::kWaiting) waiting.push_back(request->arrival);
  }
  std::sort(waiting.begin(), waiting.end());
  for (const auto& [id, request] : requests_) {
    if (request->first_token_at != absl::InfinitePast()) continue;
    if (now - request->progress_at < config_.progress_interval) continue;
    // By arrival; fairness may let others pass, so it is an estimate.
    const auto rank = std::lower_bound(waiting.begin(), waiting.end(), request->arrival);
    DeliverProgress(request.get(), static_cast<int32_t>(rank - waiting.begin()), now);
  }
}

// ---- Decodes: first, always, one row each
// --------------------------------------------------------

bool Scheduler::WantsDecodeRow(const Sequence& sequence) const {
  // One position's bans are in the slot's state: it is built anew before the next token's sample,
  // which takes that the token is known.
  if (sequence.bound_to_bans && sequence.pending > 0) return false;
  return sequence.state == SequenceState::kDecoding && sequence.forced.empty() &&
         sequence.length() > sequence.planned && sequence.may_sample() &&
         sequence.output() < sequence.request->spec.max_tokens;
}

// One, but for a sequence whose next tokens were forced: those go in like a short prefill.
int32_t Scheduler::DecodeTokens(const Sequence& sequence) const {
  return sequence.length() - sequence.planned;
}

void Scheduler::SecureRunningBlocks() {
  scratch_.clear();
  for (Sequence* sequence : running_) {
    // A prefill has all its blocks, but for tokens that were forced after it was let in.
    const bool grew = sequence->state == SequenceState::kPrefilling &&
                      sequence->blocks.size() * config_.tokens_per_block < sequence->tokens.size();
    if (grew || WantsDecodeRow(*sequence)) scratch_.push_back(sequence);
  }
  for (Sequence* sequence : scratch_) {
    if (sequence->running()) SecureBlocks(*sequence, sequence->length() - sequence->planned);
  }
}

bool Scheduler::SecureBlocks(Sequence& sequence, int32_t tokens) {
  const size_t first = static_cast<size_t>(sequence.planned / config_.tokens_per_block);
  const size_t last =
      static_cast<size_t>((sequence.planned + tokens - 1) / config_.tokens_per_block);
  while (true) {
    const bool copy = first < sequence.blocks.size() && IsShared(sequence.blocks[first]);
    const size_t missing =
        last + 1 > sequence.blocks.size() ? last + 1 - sequence.blocks.size() : 0;
    const int32_t wanted = static_cast<int32_t>(missing) + copy;
    if (wanted == 0) return true;
    if (cache_.MakeRoom(wanted)) {
      Reservation reservation = *pool_.Reserve(wanted);
      if (copy) {
        // The source stays held until the plan is complete: nothing may be copied over it.
        sequence.copy_from = sequence.blocks[first];
        copy_sources_.push_back(sequence.blocks[first]);
        sequence.blocks[first] = reservation.Take();
      }
      while (reservation.remaining() > 0) sequence.blocks.push_back(reservation.Take());
      return true;
    }
    Sequence* victim = Victim();
    Preempt(*victim);
    if (victim == &sequence) return false;
  }
}

bool Scheduler::IsShared(BlockId block) const {
  const auto sources = std::count(copy_sources_.begin(), copy_sources_.end(), block);
  return pool_.refs(block) - sources > 1;
}

// The youngest of the least entitled.
Sequence* Scheduler::Victim() {
  return *std::max_element(running_.begin(), running_.end(), [](Sequence* a, Sequence* b) {
    const Request& x = *a->request;
    const Request& y = *b->request;
    if (x.share->virtual_time != y.share->virtual_time) {
      return x.share->virtual_time < y.share->virtual_time;
    }
    if (x.spec.priority != y.spec.priority) return x.spec.priority > y.spec.priority;
    if (x.arrival != y.arrival) return x.arrival < y.arrival;
    return a->index < b->index;
  });
}

void Scheduler::Preempt(Sequence& victim) {
  observer_->OnPreemption();
  ++victim.preemptions;
  Requeue(victim);
}

// A running sequence gives back all that it holds and waits to be computed again.
void Scheduler::Requeue(Sequence& sequence) {
  std::erase(running_, &sequence);
  ReleaseBlocks(sequence);
  ReleaseSlot(sequence);
  if (!sequence.request->forked) {
    for (Sequence& follower : sequence.request->sequences) ReleaseSlot(follower);
  }
  Transition(sequence, SequenceState::kPreempted);
  Transition(sequence, SequenceState::kWaiting);
  Enqueue(sequence);
}

void Scheduler::PlanDecodes(int32_t* budget) {
  scratch_.clear();
  for (Sequence* sequence : running_) {
    if (WantsDecodeRow(*sequence)) scratch_.push_back(sequence);
  }
  int32_t spare = *budget - static_cast<int32_t>(scratch_.size());
  for (Sequence* sequence : scratch_) {
    const int32_t more = std::min(DecodeTokens(*sequence) - 1, spare);
    spare -= more;
    EmitRow(*sequence, 1 + more);
  }
  *budget = spare;
}

// ---- Prefills: chunks of running ones and new ones, the most entitled first
// ----------------------

void Scheduler::PlanPrefills(int32_t budget, absl::Time now) {
  const int32_t decodes = static_cast<int32_t>(planning_->plan.token_ids.size());
  planning_->load.decodes = decodes;
  const auto virtual_time = [](const Sequence* sequence) {
    return sequence->request->share->virtual_time;
  };
  scratch_.clear();
  for (Sequence* sequence : running_) {
    if (sequence->state == SequenceState::kPrefilling) scratch_.push_back(sequence);
  }
  std::stable_sort(scratch_.begin(), scratch_.end(),
                   [&](Sequence* a, Sequence* b) { return virtual_time(a) < virtual_time(b); });
  const int32_t context = scratch_.empty() ? 0 : scratch_.front()->planned;
  int32_t left = decodes == 0 ? budget : std::min(budget, chunk_size_.Tokens(decodes, context));

  size_t next = 0;
  bool may_admit = true;
  while (left > 0) {
    Sequence* sequence = next < scratch_.size() ? scratch_[next] : nullptr;
    Sequence* waiting = may_admit ? queue_.Front() : nullptr;
    if (waiting != nullptr &&
        (sequence == nullptr || virtual_time(waiting) < virtual_time(sequence))) {
      // Who is next and does not fit is waited for: nobody smaller passes it, so nobody starves.
      may_admit = Admit(*waiting, now);
      if (!may_admit) continue;
      sequence = waiting;
    } else if (sequence != nullptr) {
      ++next;
    } else {
      break;
    }
    const int32_t missing = sequence->length() - sequence->planned;
    const int32_t tokens = std::min(left, missing);
    if (tokens == missing && !sequence->may_sample()) continue;  // its last row samples
    left -= tokens;
    planning_->load.prompt_tokens += tokens;
    planning_->load.attended += ChunkSize::Attended(tokens, sequence->planned);
    FairQueue::Charge(sequence->request->share, FairQueue::kPrefillWork * tokens);
    EmitRow(*sequence, tokens);
  }
}

bool Scheduler::Admit(Sequence& sequence, absl::Time now) {
  Request* request = sequence.request;
  const int32_t slots = request->forked ? 1 : request->spec.num_sequences;
  // A token of a step in flight is still to come: it belongs to what has to be computed.
  if (sequence.pending > 0 || !sequence.may_sample()) return false;
  if (free_slots_.size() < static_cast<size_t>(slots) || !TakeBlocks(sequence)) return false;
  LeaveQueue(sequence);
  Transition(sequence, SequenceState::kPrefilling);
  running_.push_back(&sequence);
  TakeSlots(sequence);
  Dequeue(request);
  if (request->first_scheduled_at == absl::InfinitePast()) {
    request->first_scheduled_at = now;
    // Ids forced while it waited may be cached too; they are no prompt.
    request->cached_tokens = std::min(sequence.planned, request->prompt_tokens());
    observer_->OnPrefixLookup(request->prompt_tokens(), request->cached_tokens);
    DeliverProgress(request, 0, now);
  }
  return true;
}

// All blocks of the known tokens at once, or none: a prefill that began never waits for blocks.
bool Scheduler::TakeBlocks(Sequence& sequence) {
  const Request& request = *sequence.request;
  if (!running_.empty() && cache_.available() < sequence.retry_blocks) return false;

  const int32_t available = cache_.available();
  const bool wants_all_rows = request.spec.prompt_logprobs && !request.prompt_logprobs_sent;
  sequence.chain = cache_.Root(request.spec.cache_salt);
  sequence.chainable = config_.prefix_caching;
  if (config_.prefix_caching && !wants_all_rows) {
    // At least one token is computed: its row is what the first sample comes from.
    const auto reusable = std::span(sequence.tokens).first(sequence.tokens.size() - 1);
    sequence.chain = cache_.Match(sequence.chain, reusable, &sequence.blocks);
  }
  const int32_t matched = static_cast<int32_t>(sequence.blocks.size());
  const int32_t needed =
      (sequence.known() + config_.tokens_per_block - 1) / config_.tokens_per_block - matched;
  // Whoever runs may need a block at its next token; letting in one more that takes the last
  // blocks would only preempt somebody a step later.
  const int32_t headroom =
      running_.empty() ? 0 : static_cast<int32_t>(running_.size()) + request.spec.num_sequences - 1;
  if (cache_.available() < needed + headroom) {
    sequence.retry_blocks = needed + headroom + (available - cache_.available());
    ReleaseBlocks(sequence);
    return false;
  }
  cache_.MakeRoom(needed);
  Reservation reservation = *pool_.Reserve(needed);
  while (reservation.remaining() > 0) sequence.blocks.push_back(reservation.Take());
  sequence.planned = matched * config_.tokens_per_block;
  sequence.chained_blocks = matched;
  return true;
}

void Scheduler::TakeSlots(Sequence& sequence) {
  const auto take = [this](Sequence& taker) {
    taker.slot = free_slots_.back();
    free_slots_.pop_back();
    taker.needs_binding = true;
  };
  if (sequence.request->forked) return take(sequence);
  for (Sequence& sibling : sequence.request->sequences) take(sibling);
}

// ---- Rows
// ----------------------------------------------------------------------------------------

void Scheduler::Bind(Sequence& sequence) {
  if (!std::exchange(sequence.needs_binding, false)) return;
  const Request& request = *sequence.request;
  const auto output = sequence.tokens.begin() + request.prompt_tokens();
  planning_->plan.bindings.push_back({.slot = *sequence.slot,
                                      .sequence = sequence.index,
                                      .sampling = SamplingOf(sequence),
                                      .prompt = request.spec.prompt,
                                      .output = {output, sequence.tokens.end()}});
}

void Scheduler::EmitRow(Sequence& sequence, int32_t tokens) {
  Request* request = sequence.request;
  StepPlan& plan = planning_->plan;
  const int32_t end = sequence.planned + tokens;
  const int32_t blocks = (end + config_.tokens_per_block - 1) / config_.tokens_per_block;
  Bind(sequence);
  if (sequence.copy_from) {
    plan.copies.push_back(
        {*sequence.copy_from, sequence.blocks[sequence.planned / config_.tokens_per_block]});
    sequence.copy_from.reset();
  }
  const bool prompt_logprobs = sequence.index == 0 && sequence.planned < request->prompt_tokens() &&
                               request->spec.prompt_logprobs && !request->prompt_logprobs_sent;
  plan.rows.push_back(
      {.first_token = static_cast<int32_t>(plan.token_ids.size()),
       .token_count = tokens,
       .position = sequence.planned,
       .first_block = static_cast<int32_t>(plan.block_ids.size()),
       .block_count = blocks,
       .slot = *sequence.slot,
       .output_count = end - std::clamp(request->prompt_tokens(), sequence.planned, end),
       .prompt_logprobs = prompt_logprobs,
       .next_token = end < sequence.known() ? sequence.tokens[end] : kPendingToken});
  for (int32_t position = sequence.planned; position < end; ++position) {
    plan.token_ids.push_back(position < sequence.known() ? sequence.tokens[position]
                                                         : kPendingToken);
  }
  plan.block_ids.insert(plan.block_ids.end(), sequence.blocks.begin(),
                        sequence.blocks.begin() + blocks);
  planning_->rows.push_back(
      {&sequence, sequence.residence, sequence.planned, end, prompt_logprobs});
  ++request->rows_in_flight;
  sequence.planned = end;
  if (end < sequence.length()) return;

  const int32_t row = static_cast<int32_t>(plan.rows.size()) - 1;
  if (sequence.state == SequenceState::kPrefilling) {
    Transition(sequence, SequenceState::kDecoding);
  }
  const bool forks = !std::exchange(request->forked, true);
  EmitSample(sequence, row, end);
  if (forks) Fork(sequence, row);
}

void Scheduler::Fork(Sequence& leader, int32_t row) {
  for (Sequence& follower : std::span(leader.request->sequences).subspan(1)) {
    if (follower.ended()) continue;
    follower.blocks = leader.blocks;
    for (BlockId block : follower.blocks) pool_.Share(block);
    follower.shares_prompt = true;
    follower.planned = leader.planned;
    follower.chained_blocks = leader.chained_blocks;
    follower.chain = leader.chain;
    follower.chainable = leader.chainable;
    Transition(follower, SequenceState::kPrefilling);
    Transition(follower, SequenceState::kDecoding);
    running_.push_back(&follower);
    EmitSample(follower, row, follower.planned);
  }
}

void Scheduler::EmitSample(Sequence& sequence, int32_t row, int32_t position) {
  Bind(sequence);
  StepSample sample{.row = row, .slot = *sequence.slot, .position = position};
  if (sequence.form != nullptr && sequence.pending == 0) sample.mask = sequence.form->mask();
  if (sequence.form != nullptr && sequence.pending > 0) {
    sample.late_mask = true;
    if (masked_late_ == nullptr) planning_->plan.late_masks = std::make_shared<MaskGate>();
    masked_late_ = planning_;
  }
  planning_->plan.samples.push_back(std::move(sample));
  planning_->samples.push_back(&sequence);
  ++sequence.pending;
  FairQueue::Charge(sequence.request->share, FairQueue::kSampleWork);
}

}  // namespace behemoth::worker
