// What a request asks of the sampler. A plain value: validated by rpc/, read by the runner.
//
// Order of application (spec: vLLM's): raw logprobs -> allowed, banned, min_tokens, bias ->
// repetition, frequency, presence -> temperature (0: argmax, lowest id wins a tie) -> min_p ->
// top_k -> top_p -> draw. A new sampler adds its fields here and its stage in the pipeline.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/ids.h"

namespace behemoth::worker {

struct TokenBias {
  TokenId id;
  float bias;
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
  int32_t top_logprobs = -1;      // -1 = no logprobs; 0 = of the chosen token; n = and the top n
};

}  // namespace behemoth::worker
