// The worker's contract as the gateway's own values: what a session asks for and what comes back.
//
// All callbacks run on the loop that the call was made with. No gRPC type passes this border.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "gateway/api/generation_options.h"
#include "gateway/loop/loop.h"
#include "gateway/text/token_table.h"

namespace behemoth::gateway {

struct DynamicTemperatureSpec {
  float low = 0, high = 0;
  std::optional<float> exponent;
};

// One of `heads` with `tail` behind it.
struct SpanningBreaker {
  std::vector<uint32_t> heads, tail;
};

struct DrySpec {
  float multiplier = 0;
  std::optional<float> base;
  std::optional<uint32_t> allowed_length;
  uint32_t last_n = 0;
  std::vector<uint32_t> breaker_ids;
  std::vector<SpanningBreaker> spanning_breakers;
};

// What the output must look like; the worker's `Structure`.
struct StructureSpec {
  enum class Kind { kJsonSchema, kRegex, kGrammar };
  Kind kind = Kind::kJsonSchema;
  std::string text, begins_after;
  std::optional<uint32_t> begins_after_id;  // then anything may come before, and no form at all
  bool dumps_spaces = false;
  std::shared_ptr<const TokenTable> vocabulary;  // for a worker that has none yet
};

// An absent optional lets the worker's own default decide.
struct GenerateSpec {
  std::string request_id;  // ours, never a client's
  std::vector<uint32_t> prompt_ids;
  std::optional<float> temperature, top_p, min_p, repetition_penalty;
  std::optional<float> presence_penalty, frequency_penalty;
  std::optional<int32_t> top_k;
  std::optional<uint64_t> seed;
  std::optional<float> typical_p, top_n_sigma, xtc_probability, xtc_threshold;
  std::optional<float> smoothing_factor, smoothing_curve;
  std::optional<DynamicTemperatureSpec> dynamic_temperature;
  std::optional<DrySpec> dry;
  std::vector<SamplerStage> order;
  std::vector<std::vector<uint32_t>> banned_sequences;  // of at least two ids
  std::vector<std::pair<uint32_t, float>> logit_bias;
  std::vector<uint32_t> allowed_ids, banned_ids, stop_ids;
  std::optional<uint32_t> max_tokens;
  uint32_t min_tokens = 0;
  uint32_t num_sequences = 1;
  bool ignore_eos = false, include_stop_id = false;
  bool rewindable = false;  // then the stream stays open behind the last finish: cancel it
  std::string cache_salt, fairness_key;
  int32_t priority = 0;
  std::optional<uint32_t> top_logprobs;
  bool prompt_logprobs = false;
  std::optional<StructureSpec> structure;
  absl::Time deadline = absl::InfiniteFuture();
  uint64_t content_hash = 0;  // of what the client sent: its retry has the same; 0 = unknown
};

struct ProgressEvent {
  enum class State { kWaiting, kPrefilling, kDecoding };
  State state = State::kWaiting;
  uint32_t queue_position = 0, prefilled_tokens = 0, prompt_tokens = 0, cached_tokens = 0;
};

struct IdLogprobs {
  float logprob = 0;
  uint32_t rank = 0;
  std::vector<std::pair<uint32_t, float>> top;  // id, logprob; most likely first
};

struct TokensEvent {
  uint32_t sequence = 0;
  std::vector<uint32_t> ids;
  std::vector<IdLogprobs> logprobs;         // one per id, or none
  std::vector<IdLogprobs> prompt_logprobs;  // once
};

struct FinishEvent {
  enum class Reason { kStop, kLength, kCancelled };
  uint32_t sequence = 0;
  Reason reason = Reason::kStop;
  std::optional<uint32_t> matched_stop_id;
  uint32_t prompt_tokens = 0, cached_tokens = 0, completion_tokens = 0, preemptions = 0;
  double queue_ms = 0, prefill_ms = 0, decode_ms = 0, first_token_ms = 0;
};

// A rewind took effect: what was sent behind the first `keep_tokens`, a finish too, is void.
struct RewoundEvent {
  uint32_t sequence = 0;
  uint32_t keep_tokens = 0;
};

using WorkerEvent = std::variant<ProgressEvent, TokensEvent, FinishEvent, RewoundEvent>;

struct RewindSpec {
  uint32_t sequence = 0;
  uint32_t keep_tokens = 0;
  std::vector<uint32_t> banned_ids;  // never again there
  std::vector<uint32_t> force_ids;   // the next tokens
};

// Outlives the call or cancels it first.
class GenerateObserver {
 public:
  virtual ~GenerateObserver() = default;
  virtual void OnEvent(WorkerEvent event) = 0;
  virtual void OnDone(absl::Status status) = 0;  // once, last; never after Cancel()
};

// A stream in flight. Loop thread only; destroying it cancels it.
class GenerateCall {
 public:
  virtual ~GenerateCall() = default;
  virtual void Cancel() = 0;            // the observer hears nothing more
  virtual void Pause(bool paused) = 0;  // stops reading from the worker: backpressure
  // Control: both act on the worker that runs the request; failures show in the stream.
  virtual void EndByControl() = 0;  // -> FinishEvent kCancelled for every sequence
  virtual void ForceIds(uint32_t sequence, std::vector<uint32_t> ids) = 0;
  // -> RewoundEvent. The spec said `rewindable`. Refused: the call is done, with the reason.
  virtual void Rewind(RewindSpec rewind) = 0;
};

enum class WorkerState { kUnknown, kLoading, kWarming, kReady, kDraining, kFailed };

// What the model's generation_config.json asks for where a request says nothing.
struct GenerationDefaults {
  std::optional<float> temperature, top_p, min_p, repetition_penalty;
  std::optional<int32_t> top_k;
};

// What a worker says of itself; empty until it was reached once, then kept.
struct WorkerReport {
  WorkerState state = WorkerState::kUnknown;
  double load_percent = 0;
  std::optional<absl::Duration> eta;
  std::vector<std::string> served_names;
  std::string weights_fingerprint, tokenizer_fingerprint, build;
  uint32_t context_tokens = 0, vocabulary_size = 0;
  std::vector<uint32_t> eos_ids;
  GenerationDefaults defaults;
};

struct WorkerLoad {
  WorkerState state = WorkerState::kUnknown;
  uint32_t running_sequences = 0, waiting_requests = 0;
  double kv_use = 0;
};

// The pool's and one worker's RPCs. Callbacks run on `loop`.
class WorkerWatch {
 public:
  virtual ~WorkerWatch() = default;
  virtual void OnReport(WorkerReport report) = 0;
  virtual void OnLoad(WorkerLoad load) = 0;
  virtual void OnLost(absl::Status status) = 0;  // once; the watch is over
};

class WorkerClient {
 public:
  virtual ~WorkerClient() = default;
  virtual std::unique_ptr<GenerateCall> Generate(GenerateSpec spec, GenerateObserver* observer,
                                                 Loop& loop) = 0;
  // GetStatus once and WatchLoad until lost; destroying the handle ends it silently.
  virtual std::shared_ptr<void> Watch(WorkerWatch* watch, Loop& loop) = 0;
};

}  // namespace behemoth::gateway
