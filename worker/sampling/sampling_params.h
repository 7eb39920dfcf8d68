// What a request asks of the sampler. A plain value: validated by rpc/, read by the runner.
//
// Order of application (spec: vLLM's): raw logprobs -> allowed, banned, min_tokens, bias -> DRY ->
// repetition, frequency, presence -> (temperature 0: argmax, lowest id wins a tie) -> the stages of
// `order` -> draw. A new sampler adds its fields here and its stage in the pipeline.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "worker/ids.h"

namespace behemoth::worker {

constexpr float kBiasThatBans = -100.0f;  // the OpenAI API's meaning of its lower limit

struct TokenBias {
  TokenId id;
  float bias;
};

// From temperature on, in the default order.
enum class SamplerStage : uint8_t {
  kTemperature,  // with dynamic temperature and smoothing
  kTopNSigma,
  kTypicalP,
  kMinP,
  kTopK,
  kTopP,
  kXtc,
};
inline constexpr size_t kSamplerStages = 7;
using SamplerOrder = std::array<SamplerStage, kSamplerStages>;  // each stage once
inline constexpr SamplerOrder kDefaultOrder = {SamplerStage::kTemperature, SamplerStage::kTopNSigma,
                                               SamplerStage::kTypicalP,    SamplerStage::kMinP,
                                               SamplerStage::kTopK,        SamplerStage::kTopP,
                                               SamplerStage::kXtc};

// low + (high - low) (entropy / log(tokens left))^exponent.
struct DynamicTemperature {
  float low = 0;       // >= 0
  float high = 0;      // >= low
  float exponent = 1;  // > 0
};

// One of `heads`, with `tail` behind it.
struct SpanningBreaker {
  std::vector<TokenId> heads;  // not empty
  std::vector<TokenId> tail;   // 1..16
};

// "Don't repeat yourself".
struct DryParams {
  float multiplier = 0;        // >= 0; 0 = off
  float base = 1.75f;          // >= 1
  int32_t allowed_length = 2;  // 1..1,024
  int32_t last_n = 0;          // 0 = the whole context
  std::vector<TokenId> breaker_ids;
  std::vector<SpanningBreaker> spanning_breakers;  // at most 1,024
};

struct SamplingParams {
  float temperature = 1.0f;         // >= 0; 0 = greedy
  float top_p = 1.0f;               // (0, 1]
  int32_t top_k = 0;                // 0 = off
  float min_p = 0.0f;               // [0, 1]
  float repetition_penalty = 1.0f;  // > 0; prompt and output tokens (CTRL, arXiv:1909.05858)
  float presence_penalty = 0.0f;    // [-2, 2]; output tokens
  float frequency_penalty = 0.0f;   // [-2, 2]; output tokens
  uint64_t seed = 0;                // draws are Philox(seed, sequence, position)
  std::vector<TokenBias> logit_bias;
  std::vector<TokenId> allowed_ids;  // empty = all
  std::vector<TokenId> banned_ids;
  int32_t min_tokens = 0;         // until then `stop_ids` are banned
  std::vector<TokenId> stop_ids;  // includes the model's end of sequence unless ignored
  float typical_p = 1.0f;         // (0, 1]
  float top_n_sigma = 0.0f;       // >= 0; 0 = off
  float xtc_probability = 0.0f;   // [0, 1]
  float xtc_threshold = 0.1f;     // [0, 1]
  float smoothing_factor = 0.0f;  // >= 0; 0 = off
  float smoothing_curve = 1.0f;   // > 0
  std::optional<DynamicTemperature> dynamic_temperature;  // instead of `temperature`
  SamplerOrder order = kDefaultOrder;
  DryParams dry;
  std::vector<std::vector<TokenId>> banned_sequences;  // of 2..64 ids: never completed
  int32_t top_logprobs = -1;  // -1 = no logprobs; 0 = of the chosen token; n = and the top n
};

}  // namespace behemoth::worker
