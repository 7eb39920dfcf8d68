// What a sequence has said, as far as samplers look back at it: DRY and banned sequences.
//
// Every token knows where the same token stood before it, so that a step looks only at the places
// where its last token occurred, never at the whole context. A slot whose request uses neither
// sampler keeps nothing. Thread-compatible.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "worker/ids.h"
#include "worker/sampling/sampling_params.h"

namespace behemoth::worker {

class TokenHistory {
 public:
  // Forgets the last sequence. `params` outlives the binding.
  void Bind(const SamplingParams& params, std::span<const TokenId> prompt);
  void Append(TokenId token);

  // Removes the ids that would complete a banned sequence.
  void BanCompletions(std::span<float> logits) const;
  // DRY: takes from the logit of each id that would lengthen a repeat.
  void PenalizeRepeats(std::span<float> logits) const;

 private:
  // How many tokens before `end` equal the last ones; at most `most`.
  int32_t MatchBefore(int32_t end, int32_t most) const;
  bool EndsWith(std::span<const TokenId> ids) const;
  bool EndsWithBreaker() const;

  const SamplingParams* params_ = nullptr;
  bool repeats_ = false;  // DRY is on
  std::vector<TokenId> tokens_;
  std::vector<int32_t> before_;                   // where the same token stood last, or -1
  std::unordered_map<TokenId, int32_t> last_at_;  // of each token
  int32_t breaker_end_ = 0;                       // behind the last breaker
  std::unordered_set<TokenId> breaker_ids_;
  // Ids that complete a banned sequence, by the id before: index into banned_sequences.
  std::unordered_multimap<TokenId, size_t> banned_by_last_;
  // By the last id of their tails.
  std::unordered_multimap<TokenId, const SpanningBreaker*> breakers_by_last_;
  std::unordered_map<const SpanningBreaker*, std::unordered_set<TokenId>> heads_;
};

}  // namespace behemoth::worker
