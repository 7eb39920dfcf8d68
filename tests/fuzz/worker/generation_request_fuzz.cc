// Any bytes at the worker's own door: a GenerateRequest is refused by field, or becomes a value
// that the engine can take without another check.
#include <google/protobuf/stubs/logging.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>

#include "worker/rpc/generation_request.h"

namespace {

using namespace behemoth::worker;

RequestLimits Limits() {
  return {.vocabulary_size = 64, .context_tokens = 32, .max_sequences = 4, .eos_ids = {2}};
}

void Require(bool holds) {
  if (!holds) __builtin_trap();
}

void RequireTokens(const std::vector<TokenId>& ids, size_t most) {
  Require(ids.size() <= most);
  Require(std::all_of(ids.begin(), ids.end(), [](TokenId id) { return id >= 0 && id < 64; }));
}

void RequireDry(const DryParams& dry) {
  Require(dry.multiplier >= 0 && std::isfinite(dry.multiplier));
  Require(dry.base >= 1 && std::isfinite(dry.base));
  Require(dry.allowed_length >= 1 && dry.allowed_length <= 1024 && dry.last_n >= 0);
  RequireTokens(dry.breaker_ids, 64);
  Require(dry.spanning_breakers.size() <= 1024);
  for (const SpanningBreaker& breaker : dry.spanning_breakers) {
    Require(!breaker.heads.empty() && !breaker.tail.empty());
    RequireTokens(breaker.heads, 16384);
    RequireTokens(breaker.tail, 16);
  }
}

void RequireStages(const SamplingParams& params) {
  Require(params.typical_p > 0 && params.typical_p <= 1);
  Require(params.top_n_sigma >= 0 && std::isfinite(params.top_n_sigma));
  Require(params.xtc_probability >= 0 && params.xtc_probability <= 1);
  Require(params.xtc_threshold >= 0 && params.xtc_threshold <= 1);
  Require(params.smoothing_factor >= 0 && std::isfinite(params.smoothing_factor));
  Require(params.smoothing_curve > 0 && std::isfinite(params.smoothing_curve));
  if (const auto& range = params.dynamic_temperature; range.has_value()) {
    Require(range->low >= 0 && range->high >= range->low && std::isfinite(range->high));
    Require(range->exponent > 0 && std::isfinite(range->exponent));
  }
  SamplerOrder sorted = params.order;
  std::sort(sorted.begin(), sorted.end());
  Require(sorted == kDefaultOrder);
  Require(params.banned_sequences.size() <= 1024);
  for (const std::vector<TokenId>& ids : params.banned_sequences) {
    Require(ids.size() >= 2);
    RequireTokens(ids, 64);
  }
  RequireDry(params.dry);
}

void RequireSampling(const SamplingParams& params) {
  RequireStages(params);
  Require(params.temperature >= 0 && std::isfinite(params.temperature));
  Require(params.top_p > 0 && params.top_p <= 1);
  Require(params.top_k >= 0);
  Require(params.min_p >= 0 && params.min_p <= 1);
  Require(params.repetition_penalty > 0 && std::isfinite(params.repetition_penalty));
  Require(std::abs(params.presence_penalty) <= 2 && std::abs(params.frequency_penalty) <= 2);
  Require(params.top_logprobs >= -1 && params.top_logprobs <= 20);
  RequireTokens(params.allowed_ids, 64);
  RequireTokens(params.banned_ids, 64);
  RequireTokens(params.stop_ids, 257);
  for (const TokenBias& entry : params.logit_bias) {
    RequireTokens({entry.id}, 1);
    Require(std::abs(entry.bias) <= 100);
  }
}

void RequireLegal(const GenerationRequest& request) {
  Require(CheckRequestId(request.request_id).ok());
  RequireTokens(request.prompt, 31);
  Require(!request.prompt.empty());
  Require(request.max_tokens >= 1);
  Require(static_cast<int32_t>(request.prompt.size()) + request.max_tokens <= 32);
  Require(request.sampling.min_tokens >= 0 && request.sampling.min_tokens <= request.max_tokens);
  Require(request.num_sequences >= 1 && request.num_sequences <= 4);
  Require(std::abs(request.priority) <= 100);
  Require(request.cache_salt.size() <= 128 && request.fairness_key.size() <= 256);
  RequireSampling(request.sampling);
}

}  // namespace

// protobuf prints a line for each string that is not UTF-8: most of what is tried here.
extern "C" int LLVMFuzzerInitialize(int*, char***) {
  google::protobuf::SetLogHandler(nullptr);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const RequestLimits limits = Limits();
  behemoth::worker::v1::GenerateRequest message;
  if (!message.ParseFromArray(data, static_cast<int>(size))) return 0;
  const auto request = ToGeneration(message, limits, absl::InfiniteFuture(), 1);
  if (request.ok()) {
    RequireLegal(*request);
  } else {
    // "field: what is wrong with it"
    Require(request.status().code() == absl::StatusCode::kInvalidArgument);
    Require(request.status().message().find(": ") != absl::string_view::npos);
  }
  behemoth::worker::v1::ControlRequest::ForceIds forced;
  if (forced.ParseFromArray(data, static_cast<int>(size))) {
    if (const auto ids = ToForcedIds(forced, limits); ids.ok()) RequireTokens(*ids, 64);
  }
  return 0;
}
