// What enters and leaves the engine: a request, the events of its sequences, the sink they go to.
// This is all that rpc/ sees of the scheduling side.
#pragma once

#include <absl/status/status.h>
#include <absl/time/time.h>

#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "worker/ids.h"
#include "worker/sampling/sampling_params.h"
#include "worker/schedule/form.h"

namespace behemoth::worker {

struct TokenLogprobs {
  float logprob = 0;  // natural log, of raw logits
  int32_t rank = 0;   // 1 = most likely
  std::vector<TokenId> top_ids;
  std::vector<float> top_logprobs;
};

struct ProgressEvent {
  enum class State { kWaiting, kPrefilling, kDecoding };
  State state = State::kWaiting;
  int32_t queue_position = 0;
  int32_t prefilled_tokens = 0;  // cached ones included
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;
};

struct TokensEvent {
  int32_t sequence = 0;
  std::vector<TokenId> ids;
  std::vector<TokenLogprobs> logprobs;         // empty, or one per id
  std::vector<TokenLogprobs> prompt_logprobs;  // with the first tokens of sequence 0, if asked for
};

enum class FinishReason { kStop, kLength, kCancelled };

struct FinishEvent {
  int32_t sequence = 0;
  FinishReason reason = FinishReason::kStop;
  std::optional<TokenId> matched_stop_id;
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;
  int32_t completion_tokens = 0;
  absl::Duration queue_time, prefill_time, decode_time, first_token_time;
  int32_t preemptions = 0;
};

// A rewind took effect: of the sequence's tokens only the first `keep_tokens` stand, its finish is
// void.
struct RewoundEvent {
  int32_t sequence = 0;
  int32_t keep_tokens = 0;
};

using TokenEvent = std::variant<ProgressEvent, TokensEvent, FinishEvent, RewoundEvent>;

// Where a request's events go. Implemented by rpc/ (a stream) and by tests (a vector).
// Push and Close are called by the engine thread only and never block.
class TokenSink {
 public:
  virtual ~TokenSink() = default;
  // False = the reader is too far behind: the engine fails this request RESOURCE_EXHAUSTED.
  virtual bool Push(TokenEvent event) = 0;
  // The last call, exactly once. OK after a FinishEvent for every sequence (of a rewindable request
  // when it can be rewound no more); else why it failed.
  virtual void Close(const absl::Status& status) = 0;
};

// Goes on behind the first `keep_tokens` of a sequence's output. `banned` are never sampled there
// while what stands before stays; `forced` are the next tokens.
struct Rewind {
  int32_t sequence = 0;
  int32_t keep_tokens = 0;
  std::vector<TokenId> banned;
  std::vector<TokenId> forced;
};

struct GenerationRequest {
  std::string request_id;  // unique among those in flight
  std::vector<TokenId> prompt;
  SamplingParams sampling;
  int32_t max_tokens = 0;  // >= 1; prompt + max_tokens fits the context
  int32_t num_sequences = 1;
  bool include_stop_id = false;
  bool prompt_logprobs = false;
  bool rewindable = false;
  std::string cache_salt;
  std::string fairness_key;
  int32_t priority = 0;
  absl::Time deadline = absl::InfiniteFuture();
  std::vector<std::shared_ptr<Form>> forms;  // of each sequence, ready; empty = any text
  std::shared_ptr<TokenSink> sink;
};

}  // namespace behemoth::worker
