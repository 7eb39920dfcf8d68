// What a sequence has said, as far as samplers look back at it: DRY and banned sequences.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "worker/ids.h"
#include "worker/sampling/sampling_params.h"

namespace behemoth::worker {

// DRY's breakers, by their last ids.
class Breakers {
 public:
  Breakers() = default;
  // `dry` outlives this.
  explicit Breakers(const DryParams& dry);
  // Whether a breaker ends where `tokens`, not empty, end.
  bool EndAt(std::span<const TokenId> tokens) const;
  // Whether `id` is a breaker by itself.
  bool Contains(TokenId id) const { return ids_.contains(id); }

 private:
  struct Spanning {
    std::unordered_set<TokenId> heads;
    std::span<const TokenId> tail;
  };
  std::unordered_set<TokenId> ids_;
  std::unordered_multimap<TokenId, Spanning> spanning_;  // by the tail's last id
};

// How many of `tokens` reach to the end of the last breaker in them; 0 = there is none.
int32_t LastBreakerEnd(const DryParams& dry, std::span<const TokenId> tokens);

// Every token knows where the same token stood before it, so that a step looks only at the places
// where its last token occurred, never at the whole context; and follows no repeat that it followed
// a step before. A slot whose request uses neither
// sampler keeps nothing. Thread-compatible.
class TokenHistory {
 public:
  // Forgets the last sequence. `params` outlives the binding.
  void Bind(const SamplingParams& params, std::span<const TokenId> prompt);
  void Append(TokenId token);

  // Removes the ids that would complete a banned sequence.
  void BanCompletions(std::span<float> logits) const;
  // DRY: takes from the logit of each id that would lengthen a repeat.
  void PenalizeRepeats(std::span<float> logits);

 private:
  // A repeat that was found when the sequence had so many tokens.
  struct Repeat {
    int32_t tokens = 0;
    int32_t length = 0;
  };

  // How many tokens up to `at`, where the last token stood, equal the sequence's last ones; at most
  // `bound`.
  int32_t RepeatAt(int32_t at, int32_t bound);

  const SamplingParams* params_ = nullptr;
  bool repeats_ = false;  // DRY is on
  std::vector<TokenId> tokens_;
  std::vector<int32_t> before_;                   // where the same token stood last, or -1
  std::unordered_map<TokenId, int32_t> last_at_;  // of each token
  Breakers breakers_;
  int32_t breaker_end_ = 0;       // behind the last breaker
  std::vector<Repeat> followed_;  // by the distance from the last token
  // Ids that complete a banned sequence, by the id before: index into banned_sequences.
  std::unordered_multimap<TokenId, size_t> banned_by_last_;
};

}  // namespace behemoth::worker
