#include "gateway/session/generation.h"

#include <absl/algorithm/container.h>
#include <absl/strings/match.h>

#include <utility>

#include "gateway/api/api_error.h"

namespace behemoth::gateway {

Generation::Generation(GenerationPlan plan, uint32_t first_choice, GenerationSink* sink)
    : plan_(std::move(plan)), first_choice_(first_choice), sink_(sink) {
  usage_.prompt_tokens = static_cast<uint32_t>(plan_.spec.prompt_ids.size());
  sequences_.reserve(plan_.spec.num_sequences);
  for (uint32_t i = 0; i < plan_.spec.num_sequences; ++i) {
    Sequence& sequence = sequences_.emplace_back(TextStream(plan_.table, plan_.text));
    if (plan_.banned) {
      sequence.banned.emplace(plan_.banned, plan_.table, plan_.text.detokenizer);
    }
  }
}

void Generation::Start(WorkerPool& pool, Loop& loop) {
  call_ = pool.Generate(plan_.model, plan_.spec, this, loop);
}

void Generation::EndThinking(const std::vector<uint32_t>& ids) {
  if (!call_) return;
  for (uint32_t i = 0; i < sequences_.size(); ++i) {
    if (!sequences_[i].ended && sequences_[i].text.thinking()) call_->ForceIds(i, ids);
  }
}

void Generation::OnEvent(WorkerEvent event) {
  if (done_) return;
  if (const auto* progress = std::get_if<ProgressEvent>(&event)) {
    usage_.cached_tokens = std::max(usage_.cached_tokens, progress->cached_tokens);
    sink_->OnProgress(*progress);
  } else if (const auto* tokens = std::get_if<TokensEvent>(&event)) {
    OnTokens(*tokens);
  } else if (const auto* rewound = std::get_if<RewoundEvent>(&event)) {
    if (rewound->sequence < sequences_.size()) sequences_[rewound->sequence].rewinding = false;
  } else {
    OnFinish(std::get<FinishEvent>(event));
  }
}

void Generation::OnPromptLogprobs(const TokensEvent& event) {
  if (event.prompt_logprobs.empty()) return;
  std::vector<std::optional<TokenLogprobs>> prompt;
  for (size_t i = 0; i < event.prompt_logprobs.size() && i < plan_.spec.prompt_ids.size(); ++i) {
    prompt.push_back(
        i == 0 ? std::nullopt
               : std::optional(Scored(plan_.spec.prompt_ids[i], event.prompt_logprobs[i])));
  }
  sink_->OnPromptLogprobs(std::move(prompt));
}

void Generation::OnTokens(const TokensEvent& event) {
  OnPromptLogprobs(event);
  if (event.sequence >= sequences_.size()) return;
  Sequence& sequence = sequences_[event.sequence];
  GenerationDelta delta;
  bool over = false;
  for (size_t i = 0; i < event.ids.size() && !sequence.ended && !sequence.rewinding && !over; ++i) {
    Token token{.id = event.ids[i]};
    if (plan_.wants_logprobs && i < event.logprobs.size()) token.logprobs = event.logprobs[i];
    over = Take(event.sequence, std::move(token), delta);
  }
  const bool something = !delta.ids.empty() || !delta.text.empty();
  if (something) sink_->OnDelta(first_choice_ + event.sequence, std::move(delta));
  if (over) End(event.sequence);
}

bool Generation::Take(uint32_t index, Token token, GenerationDelta& delta) {
  ++usage_.completion_tokens;
  Sequence& sequence = sequences_[index];
  const uint32_t id = token.id;
  sequence.held.push_back(std::move(token));
  const auto match = sequence.banned ? sequence.banned->Push(id) : std::nullopt;
  return match ? TakeBack(index, *match, delta) : GiveSure(index, delta);
}

// Gives out what is sure, until a stop or the end of the budget.
bool Generation::GiveSure(uint32_t index, GenerationDelta& delta) {
  Sequence& sequence = sequences_[index];
  while (!sequence.held.empty() && !sequence.rewinding) {
    if (sequence.banned) {
      if (!sequence.banned->front_is_sure()) break;
      sequence.banned->Pop();
    }
    const Token token = std::move(sequence.held.front());
    sequence.held.pop_front();
    if (Give(sequence, token, delta)) {
      sequence.end = TextStop(sequence);
      return true;
    }
    if (sequence.given < plan_.room_tokens && ForceWhatComes(index)) return false;
  }
  return false;
}

// The end of a thought whose budget is spent; the beginning of the calls behind a thought.
bool Generation::ForceWhatComes(uint32_t index) {
  Sequence& sequence = sequences_[index];
  const bool thinking = sequence.text.thinking();
  RewindSpec rewind{.keep_tokens = sequence.given};
  if (thinking && plan_.thinking_budget && sequence.thinking_tokens >= *plan_.thinking_budget &&
      !std::exchange(sequence.budget_spent, true)) {
    rewind.force_ids = plan_.end_thinking_ids;
  } else if (!thinking && plan_.calls_after_thinking &&
             !std::exchange(sequence.calls_forced, true)) {
    rewind.force_ids = {*plan_.text.tool_calls_id};
  } else {
    return false;
  }
  Rewind(index, std::move(rewind));
  return true;
}

bool Generation::TakeBack(uint32_t index, const BannedText::Match& match, GenerationDelta& delta) {
  Sequence& sequence = sequences_[index];
  const uint32_t first = sequence.held[match.token - sequence.given].id;
  const bool again =
      ++sequence.rewinds <= kMaxRewinds && ++sequence.rewinds_at[match.token] <= kMaxRewindsAtToken;
  // The worker forgets what was banned further on, so its count begins anew.
  sequence.rewinds_at.erase(sequence.rewinds_at.upper_bound(match.token),
                            sequence.rewinds_at.end());
  sequence.banned->Rewind(match.token);
  sequence.held.resize(match.token - sequence.given);
  if (!again) sequence.banned.reset();  // all that is still held is in front of the string
  if (GiveSure(index, delta)) return true;
  if (sequence.rewinding) return false;  // the end of the budget came first
  if (again) {
    Rewind(index, {.keep_tokens = static_cast<uint32_t>(match.token), .banned_ids = {first}});
    return false;
  }
  sequence.end.reason = FinishReason::kStop;
  sequence.end.stop.text = plan_.banned->text(match.text);
  sequence.end.warning = Warning{
      "banned_strings", "the model kept coming back to one: the answer ends in front of it"};
  return true;
}

// What the worker sends until it says so is void.
void Generation::Rewind(uint32_t index, RewindSpec rewind) {
  Sequence& sequence = sequences_[index];
  if (sequence.banned) sequence.banned->Rewind(rewind.keep_tokens);
  sequence.held.resize(rewind.keep_tokens - sequence.given);
  sequence.rewinding = true;
  rewind.sequence = index;
  call_->Rewind(std::move(rewind));
}

// True: a text stop.
bool Generation::Give(Sequence& sequence, const Token& token, GenerationDelta& delta) {
  ++sequence.given;
  delta.ids.push_back(token.id);
  if (token.logprobs) delta.logprobs.push_back(Scored(token.id, *token.logprobs));
  if (sequence.text.thinking()) {
    ++usage_.reasoning_tokens;
    ++sequence.thinking_tokens;
  }
  return sequence.text.Push(std::span(&token.id, 1), delta.text);
}

SequenceEnd Generation::TextStop(const Sequence& sequence) const {
  const auto stop = sequence.text.matched_stop();
  return {.reason = FinishReason::kStop,
          .stop = {.text = stop ? std::optional<std::string>(*stop) : std::nullopt}};
}

void Generation::OnFinish(const FinishEvent& event) {
  timings_ = {
      .queue_ms = event.queue_ms,
      .prefill_ms = event.prefill_ms,
      .decode_ms = event.decode_ms,
      .ttft_ms = event.first_token_ms,
      .tokens_per_second = event.decode_ms > 0 && event.completion_tokens > 1
                               ? (event.completion_tokens - 1) * 1000 / event.decode_ms
                               : 0,
      .cached_tokens = event.cached_tokens,
      .prefill_tokens = event.prompt_tokens - std::min(event.prompt_tokens, event.cached_tokens),
      .preemptions = event.preemptions};
  usage_.cached_tokens = std::max(usage_.cached_tokens, event.cached_tokens);
  if (event.sequence >= sequences_.size() || sequences_[event.sequence].ended) return;
  Sequence& sequence = sequences_[event.sequence];
  const bool cancelled = event.reason == FinishEvent::Reason::kCancelled;
  if (sequence.rewinding && !cancelled) return;  // void
  GenerationDelta delta;
  sequence.end = EndOf(event);
  // Nothing more comes: what might have become a banned string did not.
  sequence.banned.reset();
  sequence.rewinding = false;
  sequence.budget_spent = sequence.calls_forced = true;
  if (!GiveSure(event.sequence, delta) && sequence.text.Finish(delta.text)) {
    sequence.end = TextStop(sequence);
  }
  if (!delta.ids.empty() || !delta.text.empty()) {
    sink_->OnDelta(first_choice_ + event.sequence, std::move(delta));
  }
  End(event.sequence);
}

// What ended it, in the client's own words: its stop string where that spelt a control token, its
// stop id, nothing for the model's own end.
SequenceEnd Generation::EndOf(const FinishEvent& event) const {
  SequenceEnd end;
  end.reason = event.reason == FinishEvent::Reason::kLength      ? FinishReason::kLength
               : event.reason == FinishEvent::Reason::kCancelled ? FinishReason::kCancelled
                                                                 : FinishReason::kStop;
  if (!event.matched_stop_id) return end;
  for (const auto& [text, id] : plan_.control_stops) {
    if (id == *event.matched_stop_id) end.stop.text = text;
  }
  if (!end.stop.text && absl::c_linear_search(plan_.user_stop_ids, *event.matched_stop_id)) {
    end.stop.id = *event.matched_stop_id;
  }
  return end;
}

void Generation::SettleCalls(Sequence& sequence) const {
  SequenceEnd& end = sequence.end;
  if (!plan_.text.tool_calls_id || end.reason != FinishReason::kStop || end.stop.text) return;
  const ToolCallParser& calls = sequence.text.calls();
  if (calls.complete()) {
    end.reason = FinishReason::kToolCalls;
  } else if (calls.malformed() || calls.unfinished()) {
    end.warning = Warning{"tool_calls",
                          "the model's call is malformed: what is not given as a call is content"};
  }
}

void Generation::End(uint32_t index) {
  SettleCalls(sequences_[index]);
  sequences_[index].ended = true;
  ++ended_;
  sink_->OnEnd(first_choice_ + index, sequences_[index].end);
  if (ended_ < sequences_.size() || std::exchange(done_, true)) return;
  call_->Cancel();  // after the last Finish it only saves waiting for the status
  sink_->OnGenerationDone(absl::OkStatus());
}

void Generation::OnDone(absl::Status status) {
  if (std::exchange(done_, true)) return;
  if (absl::IsInvalidArgument(status) && absl::StartsWith(status.message(), "structure")) {
    const std::string what(status.message().substr(status.message().find(": ") + 2));
    status = InvalidField(plan_.structure_field, what);
  }
  if (status.ok()) status = absl::InternalError("the worker ended its stream too early");
  sink_->OnGenerationDone(std::move(status));
}

TokenLogprobs Generation::Scored(uint32_t id, const IdLogprobs& in) const {
  TokenLogprobs out;
  out.token = {.id = id, .bytes = plan_.table->bytes(id), .logprob = in.logprob};
  out.rank = in.rank;
  for (const auto& [top_id, logprob] : in.top) {
    out.top.push_back({.id = top_id, .bytes = plan_.table->bytes(top_id), .logprob = logprob});
  }
  return out;
}

}  // namespace behemoth::gateway
