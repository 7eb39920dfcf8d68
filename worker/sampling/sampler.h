// From one row of logits to one token. The stages, their order and their exact meaning: README.md.
//
// A SamplerState is what a slot remembers between steps: its request's parameters and how often
// each token has occurred. Bound when a sequence takes the slot, advanced by every sampled token.
// Thread-compatible: different states may be used by different threads.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "worker/ids.h"
#include "worker/sampling/sampling_params.h"
#include "worker/sampling/token_history.h"
#include "worker/schedule/step_plan.h"

namespace behemoth::worker {

class SamplerState {
 public:
  explicit SamplerState(int32_t vocabulary_size);

  // Forgets the slot's last sequence. Ids of the binding are below the vocabulary size.
  void Bind(const SlotBinding& binding);
  // The token sampled last; what kPendingToken stands for. Before the first, -1.
  TokenId last_token() const { return last_token_; }
  const SamplingParams& params() const { return *params_; }

  // Consumes `logits`, [vocabulary]. Counts the token it returns. If no token survives the masks,
  // or a logit is NaN or +inf, `finite` is false and nothing is counted. `allowed`: empty = all, or
  // ceil(vocabulary / 32) words whose bit i % 32 of word i / 32 says that id i may be sampled.
  SampleResult Sample(std::span<float> logits, int32_t position,
                      std::span<const uint32_t> allowed = {});

 private:
  // From adjusted logits to a token. Not greedy.
  TokenId Draw(std::span<float> logits, int32_t position);
  void ApplyStage(SamplerStage stage, std::span<float> logits, int32_t position);
  // Masses at the request's temperature, or at 1, of the tokens that are left.
  void ApplyTemperature(std::span<float> logits, bool neutral);
  void ApplyTopNSigma();
  float TemperatureOf(std::span<const float> logits, float largest);
  void ApplyMasks(std::span<float> logits, std::span<const uint32_t> allowed) const;
  void ApplyPenalties(std::span<float> logits) const;
  void Count(TokenId token);

  std::shared_ptr<const SamplingParams> params_;
  int32_t sequence_ = 0;
  int32_t output_length_ = 0;
  TokenId last_token_ = -1;
  std::vector<int32_t> output_counts_;  // [vocabulary]
  std::vector<uint8_t> in_prompt_;      // [vocabulary]
  std::vector<uint8_t> is_allowed_;     // [vocabulary], or empty = all
  TokenHistory history_;
  std::vector<float> scaled_;     // [vocabulary], logits that `masses_` stand for
  std::vector<uint32_t> masses_;  // [vocabulary], of the row being sampled
  bool is_cut_ = false;           // a stage has removed tokens: those of mass 0 are out
  std::vector<uint32_t> heap_;    // scratch of the truncating stages
};

// The raw distribution's view of `token`: log softmax, rank, and the `top` most likely ids.
TokenLogprobs ScoreToken(std::span<const float> logits, TokenId token, int32_t top);

}  // namespace behemoth::worker
