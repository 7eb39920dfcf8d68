#include "worker/rpc/event_messages.h"

#include <absl/time/time.h>

#include <iterator>
#include <utility>

namespace behemoth::worker {
namespace {

using LogprobMessages = google::protobuf::RepeatedPtrField<v1::TokenLogprobs>;

void ToMessages(const std::vector<TokenLogprobs>& logprobs, LogprobMessages* out) {
  out->Reserve(static_cast<int>(logprobs.size()));
  for (const TokenLogprobs& token : logprobs) {
    v1::TokenLogprobs& message = *out->Add();
    message.set_logprob(token.logprob);
    message.set_rank(static_cast<uint32_t>(token.rank));
    message.mutable_top_ids()->Add(token.top_ids.begin(), token.top_ids.end());
    message.mutable_top_logprobs()->Add(token.top_logprobs.begin(), token.top_logprobs.end());
  }
}

v1::Progress::State ToState(ProgressEvent::State state) {
  switch (state) {
    case ProgressEvent::State::kWaiting:
      return v1::Progress::STATE_WAITING;
    case ProgressEvent::State::kPrefilling:
      return v1::Progress::STATE_PREFILLING;
    case ProgressEvent::State::kDecoding:
      return v1::Progress::STATE_DECODING;
  }
  return v1::Progress::STATE_UNSPECIFIED;
}

v1::Finish::Reason ToReason(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return v1::Finish::REASON_STOP;
    case FinishReason::kLength:
      return v1::Finish::REASON_LENGTH;
    case FinishReason::kCancelled:
      return v1::Finish::REASON_CANCELLED;
  }
  return v1::Finish::REASON_UNSPECIFIED;
}

void Fill(const ProgressEvent& event, v1::GenerateResponse* message) {
  v1::Progress& out = *message->mutable_progress();
  out.set_state(ToState(event.state));
  out.set_queue_position(static_cast<uint32_t>(event.queue_position));
  out.set_prefilled_tokens(static_cast<uint32_t>(event.prefilled_tokens));
  out.set_prompt_tokens(static_cast<uint32_t>(event.prompt_tokens));
  out.set_cached_tokens(static_cast<uint32_t>(event.cached_tokens));
}

void Fill(const TokensEvent& event, v1::GenerateResponse* message) {
  v1::Tokens& out = *message->mutable_tokens();
  out.set_sequence(static_cast<uint32_t>(event.sequence));
  out.mutable_ids()->Add(event.ids.begin(), event.ids.end());
  ToMessages(event.logprobs, out.mutable_logprobs());
  ToMessages(event.prompt_logprobs, out.mutable_prompt_logprobs());
}

void Fill(const FinishEvent& event, v1::GenerateResponse* message) {
  v1::Finish& out = *message->mutable_finish();
  out.set_sequence(static_cast<uint32_t>(event.sequence));
  out.set_reason(ToReason(event.reason));
  if (event.matched_stop_id) out.set_matched_stop_id(static_cast<uint32_t>(*event.matched_stop_id));
  v1::Usage& usage = *out.mutable_usage();
  usage.set_prompt_tokens(static_cast<uint32_t>(event.prompt_tokens));
  usage.set_cached_tokens(static_cast<uint32_t>(event.cached_tokens));
  usage.set_completion_tokens(static_cast<uint32_t>(event.completion_tokens));
  v1::Timings& timings = *out.mutable_timings();
  timings.set_queue_ms(absl::ToDoubleMilliseconds(event.queue_time));
  timings.set_prefill_ms(absl::ToDoubleMilliseconds(event.prefill_time));
  timings.set_decode_ms(absl::ToDoubleMilliseconds(event.decode_time));
  timings.set_first_token_ms(absl::ToDoubleMilliseconds(event.first_token_time));
  timings.set_preemptions(static_cast<uint32_t>(event.preemptions));
}

void Fill(const RewoundEvent& event, v1::GenerateResponse* message) {
  message->mutable_rewound()->set_sequence(static_cast<uint32_t>(event.sequence));
  message->mutable_rewound()->set_keep_tokens(static_cast<uint32_t>(event.keep_tokens));
}

size_t BytesOf(const std::vector<TokenLogprobs>& logprobs) {
  size_t bytes = 0;
  for (const TokenLogprobs& token : logprobs) {
    bytes += sizeof(token) + token.top_ids.size() * (sizeof(TokenId) + sizeof(float));
  }
  return bytes;
}

template <typename Element>
void Append(std::vector<Element>& from, std::vector<Element>* to) {
  to->insert(to->end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
}

}  // namespace

void ToMessage(const TokenEvent& event, v1::GenerateResponse* message) {
  message->Clear();
  std::visit([message](const auto& e) { Fill(e, message); }, event);
}

bool Coalesce(TokenEvent& next, TokenEvent* last) {
  if (std::holds_alternative<ProgressEvent>(next) && std::holds_alternative<ProgressEvent>(*last)) {
    *last = next;
    return true;
  }
  auto* more = std::get_if<TokensEvent>(&next);
  auto* tokens = std::get_if<TokensEvent>(last);
  if (more == nullptr || tokens == nullptr || more->sequence != tokens->sequence) return false;
  Append(more->ids, &tokens->ids);
  Append(more->logprobs, &tokens->logprobs);
  Append(more->prompt_logprobs, &tokens->prompt_logprobs);
  return true;
}

size_t BytesOf(const TokenEvent& event) {
  const auto* tokens = std::get_if<TokensEvent>(&event);
  if (tokens == nullptr) return sizeof(TokenEvent);
  return sizeof(TokenEvent) + tokens->ids.size() * sizeof(TokenId) + BytesOf(tokens->logprobs) +
         BytesOf(tokens->prompt_logprobs);
}

}  // namespace behemoth::worker
