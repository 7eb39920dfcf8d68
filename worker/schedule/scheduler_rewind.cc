#include <absl/strings/str_cat.h>

#include <algorithm>
#include <utility>

#include "worker/schedule/scheduler.h"

namespace behemoth::worker {

absl::Status Scheduler::Rewind(const std::string& request_id, worker::Rewind rewind,
                               absl::Time now) {
  Request* request = Find(request_id);
  if (request == nullptr) return absl::NotFoundError("request_id: not in flight");
  if (rewind.sequence < 0 || rewind.sequence >= request->spec.num_sequences) {
    return absl::InvalidArgumentError(
        absl::StrCat("rewind.sequence: ", rewind.sequence, " of ", request->spec.num_sequences));
  }
  Sequence& sequence = request->sequences[static_cast<size_t>(rewind.sequence)];
  if (absl::Status bad = CheckRewind(sequence, rewind); !bad.ok()) return bad;
  TakeBack(sequence, rewind.keep_tokens, now);
  for (const TokenId id : rewind.banned) sequence.bans.push_back({rewind.keep_tokens, id});
  Deliver(request, RewoundEvent{.sequence = rewind.sequence, .keep_tokens = rewind.keep_tokens});
  sequence.forced = std::move(rewind.forced);
  AppendForcedIfKnown(sequence, now);
  return absl::OkStatus();
}

absl::Status Scheduler::CheckRewind(const Sequence& sequence, const worker::Rewind& rewind) const {
  const Request& request = *sequence.request;
  if (!request.spec.rewindable) {
    return absl::InvalidArgumentError("rewind: the request is not rewindable");
  }
  if (sequence.ended() && sequence.state != SequenceState::kFinished) {
    return absl::NotFoundError("rewind.sequence: has ended");
  }
  const int32_t known = sequence.known() - request.prompt_tokens();
  if (rewind.keep_tokens < 0 || rewind.keep_tokens > known) {
    return absl::InvalidArgumentError(
        absl::StrCat("rewind.keep_tokens: ", rewind.keep_tokens, " of ", known));
  }
  if (rewind.keep_tokens >= request.spec.max_tokens) {
    return absl::InvalidArgumentError("rewind.keep_tokens: leaves no room for another token");
  }
  const int64_t total = int64_t{request.prompt_tokens()} + rewind.keep_tokens +
                        static_cast<int64_t>(rewind.forced.size());
  if (total > config_.context_tokens) {
    return absl::InvalidArgumentError(absl::StrCat(
        "rewind.force_ids: ", total, " tokens in all, the context is ", config_.context_tokens));
  }
  std::vector<TokenId> banned = rewind.banned;
  size_t earlier = 0;
  for (const PositionBan& ban : sequence.bans) {
    earlier += ban.position < rewind.keep_tokens;
    if (ban.position == rewind.keep_tokens) banned.push_back(ban.id);
  }
  if (earlier + banned.size() > kMaxBans) {
    return absl::InvalidArgumentError(absl::StrCat("rewind.banned_ids: over ", kMaxBans));
  }
  const auto& allowed = request.sampling->allowed_ids;
  const auto is_banned = [&](TokenId id) {
    return std::find(banned.begin(), banned.end(), id) != banned.end();
  };
  if (!allowed.empty() && std::all_of(allowed.begin(), allowed.end(), is_banned)) {
    return absl::InvalidArgumentError("rewind.banned_ids: no token is left of allowed_ids");
  }
  return absl::OkStatus();
}

// Leaves the sequence waiting, with the first `keep_tokens` of its output: all else is the path of
// a preemption.
void Scheduler::TakeBack(Sequence& sequence, int32_t keep_tokens, absl::Time now) {
  Request* request = sequence.request;
  sequence.voided += std::exchange(sequence.pending, 0);
  const bool queued =
      sequence.state == SequenceState::kWaiting && (sequence.index == 0 || request->forked);
  if (queued) LeaveQueue(sequence);
  sequence.tokens.resize(request->spec.prompt.size() + static_cast<size_t>(keep_tokens));
  if (sequence.form != nullptr) RestartForm(sequence, now);
  std::erase_if(sequence.bans, [&](const PositionBan& b) { return b.position > keep_tokens; });
  if (sequence.running()) {
    Requeue(sequence);
  } else if (queued) {
    Enqueue(sequence);
  } else if (sequence.state == SequenceState::kFinished) {
    Unpark(request);
    ++request->live_sequences;
    Transition(sequence, SequenceState::kWaiting);
    if (sequence.index == 0 || request->forked) Enqueue(sequence);
  }
}

void Scheduler::RestartForm(Sequence& sequence, absl::Time now) {
  const auto output = sequence.tokens.begin() + sequence.request->prompt_tokens();
  sequence.form->Restart({output, sequence.tokens.end()});
  sequence.form_ready = false;
  sequence.form_asked_at = now;
  std::erase(unsettled_forms_, &sequence);
  unsettled_forms_.push_back(&sequence);
}

// The request's own, or with the bans of the position that is sampled next.
std::shared_ptr<const SamplingParams> Scheduler::SamplingOf(Sequence& sequence) {
  std::shared_ptr<SamplingParams> banning;
  const int32_t position = sequence.output();
  for (const PositionBan& ban : sequence.bans) {
    if (ban.position != position) continue;
    if (!banning) banning = std::make_shared<SamplingParams>(*sequence.request->sampling);
    banning->banned_ids.push_back(ban.id);
  }
  sequence.bound_to_bans = banning != nullptr;
  if (banning) return banning;
  return sequence.request->sampling;
}

void Scheduler::Park(Request* request, absl::Time now) {
  request->parked_until = now + kParkTime;
  parked_.emplace(request->parked_until, request);
}

void Scheduler::Unpark(Request* request) {
  parked_.erase({request->parked_until, request});
  request->parked_until = absl::InfiniteFuture();
}

}  // namespace behemoth::worker
