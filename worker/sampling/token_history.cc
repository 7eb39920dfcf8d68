#include "worker/sampling/token_history.h"

#include <algorithm>
#include <limits>

#include "kernels/sampling/stage_math.h"

namespace behemoth::worker {
namespace {

bool EndsWith(std::span<const TokenId> tokens, std::span<const TokenId> ids) {
  return ids.size() <= tokens.size() && std::equal(ids.rbegin(), ids.rend(), tokens.rbegin());
}

}  // namespace

Breakers::Breakers(const DryParams& dry) : ids_(dry.breaker_ids.begin(), dry.breaker_ids.end()) {
  for (const SpanningBreaker& breaker : dry.spanning_breakers) {
    spanning_.emplace(breaker.tail.back(),
                      Spanning{{breaker.heads.begin(), breaker.heads.end()}, breaker.tail});
  }
}

bool Breakers::EndAt(std::span<const TokenId> tokens) const {
  if (ids_.contains(tokens.back())) return true;
  const auto [first, end] = spanning_.equal_range(tokens.back());
  return std::any_of(first, end, [&](const auto& entry) {
    const Spanning& breaker = entry.second;
    const size_t length = breaker.tail.size() + 1;
    return length <= tokens.size() && EndsWith(tokens, breaker.tail) &&
           breaker.heads.contains(tokens[tokens.size() - length]);
  });
}

int32_t LastBreakerEnd(const DryParams& dry, std::span<const TokenId> tokens) {
  const Breakers breakers(dry);
  size_t end = tokens.size();
  while (end > 0 && !breakers.EndAt(tokens.first(end))) --end;
  return static_cast<int32_t>(end);
}

void TokenHistory::Bind(const SamplingParams& params, std::span<const TokenId> prompt) {
  *this = TokenHistory();
  params_ = &params;
  repeats_ = params.dry.multiplier > 0;
  for (size_t i = 0; i < params.banned_sequences.size(); ++i) {
    const std::vector<TokenId>& ids = params.banned_sequences[i];
    banned_by_last_.emplace(ids[ids.size() - 2], i);
  }
  if (repeats_) breakers_ = Breakers(params.dry);
  for (const TokenId token : prompt) Append(token);
}

void TokenHistory::Append(TokenId token) {
  if (!repeats_ && banned_by_last_.empty()) return;
  const auto at = static_cast<int32_t>(tokens_.size());
  tokens_.push_back(token);
  if (!repeats_) return;
  const auto [last, is_new] = last_at_.try_emplace(token, -1);
  before_.push_back(last->second);
  last->second = at;
  if (breakers_.EndAt(tokens_)) breaker_end_ = at + 1;
}

void TokenHistory::BanCompletions(std::span<float> logits) const {
  if (banned_by_last_.empty() || tokens_.empty()) return;
  const auto [first, end] = banned_by_last_.equal_range(tokens_.back());
  for (auto entry = first; entry != end; ++entry) {
    const std::span<const TokenId> ids = params_->banned_sequences[entry->second];
    if (!EndsWith(tokens_, ids.first(ids.size() - 1))) continue;
    logits[static_cast<size_t>(ids.back())] = -std::numeric_limits<float>::infinity();
  }
}

int32_t TokenHistory::RepeatAt(int32_t at, int32_t bound) {
  const auto tokens = static_cast<int32_t>(tokens_.size());
  Repeat& known = followed_[static_cast<size_t>(tokens - 1 - at)];
  int32_t length = 1;
  if (known.tokens == tokens - 1) {
    // `bound` grows by one at most from a token to the next: if it cut the repeat short, no harm.
    length = std::min(known.length + 1, bound);
  } else {
    const TokenId* const here = tokens_.data() + at;
    while (length < bound && here[-length] == tokens_[static_cast<size_t>(tokens - 1 - length)]) {
      ++length;
    }
  }
  known = {.tokens = tokens, .length = length};
  return length;
}

void TokenHistory::PenalizeRepeats(std::span<float> logits) {
  if (!repeats_ || tokens_.empty()) return;
  const DryParams& dry = params_->dry;
  const auto length = static_cast<int32_t>(tokens_.size());
  const int32_t start = dry.last_n > 0 ? std::max(0, length - dry.last_n) : 0;
  const int32_t most =
      std::min(length - std::max(start, breaker_end_), dry.allowed_length + kernels::kMaxDryExcess);
  followed_.resize(tokens_.size());
  std::unordered_map<TokenId, int32_t> longest;
  for (int32_t at = before_.back(); at >= start && most >= dry.allowed_length; at = before_[at]) {
    const int32_t repeated = RepeatAt(at, std::min(most, at + 1 - start));
    if (repeated < dry.allowed_length || breakers_.Contains(tokens_[at + 1])) continue;
    int32_t& known = longest[tokens_[at + 1]];
    known = std::max(known, repeated);
  }
  for (const auto& [token, repeated] : longest) {
    logits[static_cast<size_t>(token)] -=
        kernels::DryPenalty(dry.multiplier, dry.base, repeated - dry.allowed_length);
  }
}

}  // namespace behemoth::worker
