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
    sequences_.emplace_back(TextStream(plan_.table, plan_.text));
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
  } else {
    OnFinish(std::get<FinishEvent>(event));
  }
}

void Generation::OnTokens(const TokensEvent& event) {
  if (!event.prompt_logprobs.empty()) {
    std::vector<std::optional<TokenLogprobs>> prompt;
    for (size_t i = 0; i < event.prompt_logprobs.size() && i < plan_.spec.prompt_ids.size(); ++i) {
      prompt.push_back(
          i == 0 ? std::nullopt
                 : std::optional(Scored(plan_.spec.prompt_ids[i], event.prompt_logprobs[i])));
    }
    sink_->OnPromptLogprobs(std::move(prompt));
  }
  if (event.sequence >= sequences_.size()) return;
  Sequence& sequence = sequences_[event.sequence];
  if (sequence.ended || event.ids.empty()) return;
  GenerationDelta delta;
  bool stopped = false;
  for (size_t i = 0; i < event.ids.size() && !stopped; ++i) {
    stopped = TakeId(sequence, event.sequence, event.ids[i], delta);
    if (plan_.wants_logprobs && i < event.logprobs.size()) {
      delta.logprobs.push_back(Scored(event.ids[i], event.logprobs[i]));
    }
  }
  sink_->OnDelta(first_choice_ + event.sequence, std::move(delta));
  if (stopped) {
    const auto stop = sequence.text.matched_stop();
    End(event.sequence,
        {.reason = FinishReason::kStop,
         .stop = {.text = stop ? std::optional<std::string>(*stop) : std::nullopt}});
  }
}

bool Generation::TakeId(Sequence& sequence, uint32_t index, uint32_t id, GenerationDelta& delta) {
  ++usage_.completion_tokens;
  delta.ids.push_back(id);
  if (sequence.text.thinking()) {
    ++usage_.reasoning_tokens;
    ++sequence.thinking_tokens;
    if (plan_.thinking_budget && sequence.thinking_tokens >= *plan_.thinking_budget &&
        !std::exchange(sequence.budget_spent, true)) {
      call_->ForceIds(index, plan_.end_thinking_ids);
    }
  }
  return sequence.text.Push(std::span(&id, 1), delta.text);
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
  GenerationDelta delta;
  SequenceEnd end = EndOf(event);
  if (sequence.text.Finish(delta.text)) {
    const auto stop = sequence.text.matched_stop();
    end = {.reason = FinishReason::kStop,
           .stop = {.text = stop ? std::optional<std::string>(*stop) : std::nullopt}};
  }
  if (!delta.text.content.empty() || !delta.text.reasoning.empty()) {
    sink_->OnDelta(first_choice_ + event.sequence, std::move(delta));
  }
  End(event.sequence, std::move(end));
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

void Generation::End(uint32_t index, SequenceEnd end) {
  sequences_[index].ended = true;
  ++ended_;
  sink_->OnEnd(first_choice_ + index, end);
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
