#include "worker/schedule/scheduler.h"

#include <absl/strings/str_cat.h>

#include <algorithm>

#include "proto/support/check.h"

namespace behemoth::worker {
namespace {

// Followers of a request that has not forked yet wait for their leader, not in the queue.
bool IsQueued(const Sequence& sequence) {
  return sequence.state == SequenceState::kWaiting &&
         (sequence.index == 0 || sequence.request->forked);
}

WaitingEntry EntryOf(Sequence& sequence) {
  return {.priority = sequence.request->spec.priority,
          .arrival = sequence.request->arrival,
          .index = sequence.index,
          .sequence = &sequence};
}

absl::Status NoSuchRequest() { return absl::NotFoundError("request_id: not in flight"); }

}  // namespace

Scheduler::Scheduler(const SchedulerConfig& config, ScheduleObserver* observer)
    : config_(config),
      observer_(observer),
      pool_(config.blocks),
      cache_(&pool_, config.tokens_per_block, config.cache_secret),
      chunk_size_(config.max_step_tokens, config.token_multiple, config.itl_target),
      steps_(static_cast<size_t>(config.pipeline_depth)) {
  BEHEMOTH_CHECK(int64_t{config.blocks} * config.tokens_per_block >= config.context_tokens,
                 "the longest legal request must fit alone");
  BEHEMOTH_CHECK(config.max_step_tokens >= config.max_sequences, "every decode needs a row");
  for (int32_t slot = config.max_sequences - 1; slot >= 0; --slot) {
    free_slots_.push_back(SlotId{slot});
  }
}

Scheduler::~Scheduler() = default;

// ---- The outside's calls
// -------------------------------------------------------------------------

void Scheduler::Submit(GenerationRequest spec, absl::Time now) {
  auto owned = std::make_unique<Request>();
  Request* request = owned.get();
  request->spec = std::move(spec);
  request->sampling = std::make_shared<const SamplingParams>(std::move(request->spec.sampling));
  request->arrival = ++arrivals_;
  request->arrived_at = now;
  request->first_scheduled_at = request->first_token_at = absl::InfinitePast();
  request->share = queue_.Join(request->spec.fairness_key);
  request->live_sequences = request->spec.num_sequences;
  request->prompt_logprobs.resize(request->spec.prompt_logprobs ? 1 : 0);
  request->sequences.resize(static_cast<size_t>(request->spec.num_sequences));
  for (size_t i = 0; i < request->sequences.size(); ++i) {
    Sequence& sequence = request->sequences[i];
    sequence.request = request;
    sequence.index = static_cast<int32_t>(i);
    sequence.tokens = request->spec.prompt;
    sequence.last_token_at = now;
    if (!request->spec.forms.empty()) sequence.form = request->spec.forms[i];
  }
  if (request->spec.deadline != absl::InfiniteFuture()) {
    deadlines_.emplace(request->spec.deadline, request);
  }
  const bool is_new = requests_.emplace(request->spec.request_id, std::move(owned)).second;
  BEHEMOTH_CHECK(is_new, "the engine lets no request id in twice");
  DeliverProgress(request, queue_.size(), now);
  Enqueue(request->sequences[0]);
}

absl::Status Scheduler::Cancel(const std::string& request_id, absl::Time now) {
  Request* request = Find(request_id);
  if (request == nullptr) return NoSuchRequest();
  for (Sequence& sequence : request->sequences) {
    if (!sequence.ended()) Finish(sequence, FinishReason::kCancelled, std::nullopt, now);
  }
  if (!request->closed) Close(request, absl::OkStatus());  // it was parked
  return absl::OkStatus();
}

absl::Status Scheduler::Abort(const std::string& request_id, const absl::Status& why) {
  Request* request = Find(request_id);
  if (request == nullptr) return NoSuchRequest();
  Abort(request, why);
  return absl::OkStatus();
}

void Scheduler::Abort(Request* request, const absl::Status& why) {
  if (request->closed) return;
  const SequenceState state =
      absl::IsCancelled(why) ? SequenceState::kCancelled : SequenceState::kFailed;
  for (Sequence& sequence : request->sequences) {
    if (!sequence.ended()) End(sequence, state);
  }
  Close(request, why);
}

void Scheduler::AbortAll(const absl::Status& why) {
  while (!requests_.empty()) Abort(requests_.begin()->second.get(), why);
}

absl::Status Scheduler::ForceIds(const std::string& request_id, int32_t index,
                                 std::vector<TokenId> ids, absl::Time now) {
  Request* request = Find(request_id);
  if (request == nullptr) return NoSuchRequest();
  if (index < 0 || index >= request->spec.num_sequences) {
    return absl::InvalidArgumentError(
        absl::StrCat("force_ids.sequence: ", index, " of ", request->spec.num_sequences));
  }
  Sequence& sequence = request->sequences[static_cast<size_t>(index)];
  if (sequence.ended()) return absl::NotFoundError("force_ids.sequence: has ended");
  const size_t total = static_cast<size_t>(sequence.length()) + sequence.forced.size() + ids.size();
  if (ids.empty() || total > static_cast<size_t>(config_.context_tokens)) {
    return absl::InvalidArgumentError(absl::StrCat("force_ids.ids: ", ids.size(), ", ", total,
                                                   " tokens in all, the context is ",
                                                   config_.context_tokens));
  }
  sequence.forced.insert(sequence.forced.end(), ids.begin(), ids.end());
  AppendForcedIfKnown(sequence, now);
  return absl::OkStatus();
}

absl::Status Scheduler::ExtendMaxTokens(const std::string& request_id, int32_t additional_tokens) {
  Request* request = Find(request_id);
  if (request == nullptr) return NoSuchRequest();
  const int64_t total =
      int64_t{request->prompt_tokens()} + request->spec.max_tokens + additional_tokens;
  if (additional_tokens < 1 || total > config_.context_tokens) {
    return absl::InvalidArgumentError(absl::StrCat("extend_max_tokens.additional_tokens: ", total,
                                                   " tokens in all, the context is ",
                                                   config_.context_tokens));
  }
  request->spec.max_tokens += additional_tokens;
  return absl::OkStatus();
}

LoadSnapshot Scheduler::load() const {
  return {.running_sequences = static_cast<int32_t>(running_.size()),
          .waiting_requests = queue_.size(),
          .waiting_tokens = waiting_tokens_,
          .free_blocks = cache_.available(),
          .blocks = pool_.capacity(),
          .prefix_digest = cache_.digest(),
          .steps = committed_};
}

absl::Time Scheduler::next_deadline() const {
  const auto first = [](const auto& times) {
    return times.empty() ? absl::InfiniteFuture() : times.begin()->first;
  };
  return std::min(first(deadlines_), first(parked_));
}

// ---- Events -----------------------------------------------------------------------------------

Request* Scheduler::Find(const std::string& request_id) {
  const auto found = requests_.find(request_id);
  return found == requests_.end() ? nullptr : found->second.get();
}

void Scheduler::Deliver(Request* request, TokenEvent event) {
  deliveries_.push_back({request, std::move(event)});
}

void Scheduler::DeliverProgress(Request* request, int32_t queue_position, absl::Time now) {
  const Sequence& leader = request->sequences[0];
  ProgressEvent event{.prefilled_tokens = std::min(leader.planned, request->prompt_tokens()),
                      .prompt_tokens = request->prompt_tokens(),
                      .cached_tokens = request->cached_tokens};
  if (request->first_token_at != absl::InfinitePast()) {
    event.state = ProgressEvent::State::kDecoding;
  } else if (leader.running()) {
    event.state = ProgressEvent::State::kPrefilling;
  } else {
    event.queue_position = queue_position;
  }
  request->progress_at = now;
  Deliver(request, event);
}

void Scheduler::EmitTokens(Sequence& sequence, TokensEvent event, absl::Time now) {
  Request* request = sequence.request;
  if (request->first_token_at == absl::InfinitePast()) {
    request->first_token_at = now;
    observer_->OnFirstToken(now - request->arrived_at);
    DeliverProgress(request, 0, now);
  } else {
    observer_->OnNextToken(now - sequence.last_token_at);
  }
  sequence.last_token_at = now;
  event.sequence = sequence.index;
  if (sequence.index == 0 && !request->prompt_logprobs_sent) {
    request->prompt_logprobs_sent = true;
    event.prompt_logprobs = std::move(request->prompt_logprobs);
  }
  Deliver(request, std::move(event));
}

void Scheduler::AppendForcedIfKnown(Sequence& sequence, absl::Time now) {
  // Sequences that share a prompt part after their first own token, not before; and the logprobs
  // of a prompt go out with the first token.
  const Request& request = *sequence.request;
  const bool needs_prompt =
      !request.forked && (request.spec.num_sequences > 1 || request.spec.prompt_logprobs);
  if (!sequence.forced.empty() && sequence.pending == 0 && !needs_prompt) {
    AppendForced(sequence, now);
  }
}

void Scheduler::AppendForced(Sequence& sequence, absl::Time now) {
  Request* request = sequence.request;
  const size_t room = static_cast<size_t>(request->spec.max_tokens - sequence.output());
  sequence.forced.resize(std::min(sequence.forced.size(), room));
  sequence.tokens.insert(sequence.tokens.end(), sequence.forced.begin(), sequence.forced.end());
  if (sequence.form != nullptr) {
    for (const TokenId id : sequence.forced) AdvanceForm(sequence, id, now);
  }
  // The slot counts what it sampled; these it has not seen.
  sequence.needs_binding = true;
  TokensEvent event{.ids = std::exchange(sequence.forced, {})};
  // No distribution stands behind a forced token: rank 0 says so.
  if (request->sampling->top_logprobs >= 0) event.logprobs.resize(event.ids.size());
  EmitTokens(sequence, std::move(event), now);
  if (sequence.output() >= request->spec.max_tokens) {
    Finish(sequence, FinishReason::kLength, std::nullopt, now);
  }
}

void Scheduler::AdvanceForm(Sequence& sequence, TokenId token, absl::Time now) {
  sequence.form->Advance(token);
  sequence.form_asked_at = now;
  if (std::exchange(sequence.form_ready, false)) unsettled_forms_.push_back(&sequence);
}

// ---- Ends -------------------------------------------------------------------------------------

void Scheduler::Finish(Sequence& sequence, FinishReason reason, std::optional<TokenId> stop,
                       absl::Time now) {
  Request* request = sequence.request;
  const auto between = [](absl::Time from, absl::Time to) {
    return from == absl::InfinitePast() ? absl::ZeroDuration() : to - from;
  };
  const bool has_token = request->first_token_at != absl::InfinitePast();
  const bool scheduled = request->first_scheduled_at != absl::InfinitePast();
  const absl::Time first = has_token ? request->first_token_at : now;
  FinishEvent event{
      .sequence = sequence.index,
      .reason = reason,
      .matched_stop_id = stop,
      .prompt_tokens = request->prompt_tokens(),
      .cached_tokens = request->cached_tokens,
      .completion_tokens = sequence.known() - request->prompt_tokens(),
      .queue_time = (scheduled ? request->first_scheduled_at : now) - request->arrived_at,
      // Forced tokens may come before the prompt was ever scheduled.
      .prefill_time = std::max(between(request->first_scheduled_at, first), absl::ZeroDuration()),
      .decode_time = between(request->first_token_at, now),
      .first_token_time = has_token ? first - request->arrived_at : absl::ZeroDuration(),
      .preemptions = sequence.preemptions,
  };
  observer_->OnFinish(event, now - request->arrived_at);
  Deliver(request, event);
  End(sequence,
      reason == FinishReason::kCancelled ? SequenceState::kCancelled : SequenceState::kFinished);
  if (request->live_sequences > 0) return;
  if (request->spec.rewindable && reason != FinishReason::kCancelled) return Park(request, now);
  Close(request, absl::OkStatus());
}

void Scheduler::End(Sequence& sequence, SequenceState state) {
  if (IsQueued(sequence)) LeaveQueue(sequence);
  if (sequence.running()) std::erase(running_, &sequence);
  ReleaseBlocks(sequence);
  ReleaseSlot(sequence);
  Transition(sequence, state);
  --sequence.request->live_sequences;
}

void Scheduler::Close(Request* request, const absl::Status& status) {
  request->closed = true;
  observer_->OnClose(status);
  deliveries_.push_back({request, status});
  deadlines_.erase({request->spec.deadline, request});
  parked_.erase({request->parked_until, request});
  queue_.Leave(std::exchange(request->share, nullptr));
  Dequeue(request);
  const auto found = requests_.find(request->spec.request_id);
  retired_.push_back(std::move(found->second));
  requests_.erase(found);
}

void Scheduler::Dequeue(Request* request) {
  if (!std::exchange(request->counted_as_queued, false)) return;
  ++dequeued_.requests;
  dequeued_.tokens += request->prompt_tokens();
}

void Scheduler::Enqueue(Sequence& sequence) {
  queue_.Push(sequence.request->share, EntryOf(sequence));
  sequence.retry_blocks = 0;
  sequence.queued_tokens = sequence.known();
  waiting_tokens_ += sequence.queued_tokens;
}

void Scheduler::LeaveQueue(Sequence& sequence) {
  queue_.Remove(sequence.request->share, EntryOf(sequence));
  waiting_tokens_ -= sequence.queued_tokens;
}

void Scheduler::ReleaseBlocks(Sequence& sequence) {
  // Last first: the prefix cache evicts what was released first, and that must be a leaf.
  for (auto block = sequence.blocks.rbegin(); block != sequence.blocks.rend(); ++block) {
    cache_.Release(*block);
  }
  sequence.blocks.clear();
  sequence.copy_from.reset();
  sequence.shares_prompt = false;
  sequence.planned = 0;
  sequence.chained_blocks = 0;
  ++sequence.residence;
}

void Scheduler::ReleaseSlot(Sequence& sequence) {
  if (!sequence.slot) return;
  free_slots_.push_back(*sequence.slot);
  sequence.slot.reset();
}

void Scheduler::CheckInvariants() const {
  pool_.Check();
  cache_.Check();
  std::vector<int32_t> holders(static_cast<size_t>(pool_.capacity()), 0);
  size_t slots = 0;
  for (const auto& [id, request] : requests_) {
    for (const Sequence& sequence : request->sequences) {
      for (BlockId block : sequence.blocks) ++holders[static_cast<size_t>(block)];
      slots += sequence.slot.has_value();
      BEHEMOTH_CHECK(sequence.running() || sequence.blocks.empty(), "blocks without running");
    }
  }
  // What the tables do not hold, the cache does: one hold per entry.
  int32_t cached_only = 0;
  for (int32_t block = 0; block < pool_.capacity(); ++block) {
    const int32_t extra = pool_.refs(BlockId{block}) - holders[static_cast<size_t>(block)];
    BEHEMOTH_CHECK(extra == 0 || extra == 1, "a block has a holder that nobody knows");
    cached_only += extra == 1 && holders[static_cast<size_t>(block)] == 0;
  }
  BEHEMOTH_CHECK(cached_only == cache_.idle(), "idle blocks miscounted");
  BEHEMOTH_CHECK(slots + free_slots_.size() == static_cast<size_t>(config_.max_sequences),
                 "a slot is lost or twice there");
}

}  // namespace behemoth::worker
