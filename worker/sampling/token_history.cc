#include "worker/sampling/token_history.h"

#include <algorithm>
#include <limits>

#include "kernels/sampling/stage_math.h"

namespace behemoth::worker {

void TokenHistory::Bind(const SamplingParams& params, std::span<const TokenId> prompt) {
  *this = TokenHistory();
  params_ = &params;
  repeats_ = params.dry.multiplier > 0;
  for (size_t i = 0; i < params.banned_sequences.size(); ++i) {
    const std::vector<TokenId>& ids = params.banned_sequences[i];
    banned_by_last_.emplace(ids[ids.size() - 2], i);
  }
  if (repeats_) {
    breaker_ids_.insert(params.dry.breaker_ids.begin(), params.dry.breaker_ids.end());
    for (const SpanningBreaker& breaker : params.dry.spanning_breakers) {
      breakers_by_last_.emplace(breaker.tail.back(), &breaker);
      heads_[&breaker].insert(breaker.heads.begin(), breaker.heads.end());
    }
  }
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
  if (EndsWithBreaker()) breaker_end_ = at + 1;
}

bool TokenHistory::EndsWith(std::span<const TokenId> ids) const {
  return ids.size() <= tokens_.size() && std::equal(ids.rbegin(), ids.rend(), tokens_.rbegin());
}

bool TokenHistory::EndsWithBreaker() const {
  if (breaker_ids_.contains(tokens_.back())) return true;
  const auto [first, end] = breakers_by_last_.equal_range(tokens_.back());
  return std::any_of(first, end, [&](const auto& entry) {
    const SpanningBreaker& breaker = *entry.second;
    const size_t length = breaker.tail.size() + 1;
    return length <= tokens_.size() && EndsWith(breaker.tail) &&
           heads_.at(&breaker).contains(tokens_[tokens_.size() - length]);
  });
}

void TokenHistory::BanCompletions(std::span<float> logits) const {
  if (banned_by_last_.empty() || tokens_.empty()) return;
  const auto [first, end] = banned_by_last_.equal_range(tokens_.back());
  for (auto entry = first; entry != end; ++entry) {
    const std::span<const TokenId> ids = params_->banned_sequences[entry->second];
    if (!EndsWith(ids.first(ids.size() - 1))) continue;
    logits[static_cast<size_t>(ids.back())] = -std::numeric_limits<float>::infinity();
  }
}

int32_t TokenHistory::MatchBefore(int32_t end, int32_t most) const {
  const TokenId* last = tokens_.data() + tokens_.size();
  const TokenId* here = tokens_.data() + end;
  int32_t length = 0;
  while (length < most && here[-1 - length] == last[-1 - length]) ++length;
  return length;
}

void TokenHistory::PenalizeRepeats(std::span<float> logits) const {
  if (!repeats_ || tokens_.empty()) return;
  const DryParams& dry = params_->dry;
  const auto length = static_cast<int32_t>(tokens_.size());
  const int32_t start = dry.last_n > 0 ? std::max(0, length - dry.last_n) : 0;
  const int32_t most =
      std::min(length - std::max(start, breaker_end_), dry.allowed_length + kernels::kMaxDryExcess);
  std::unordered_map<TokenId, int32_t> longest;
  for (int32_t at = before_.back(); at >= start && most >= dry.allowed_length; at = before_[at]) {
    const int32_t repeated = MatchBefore(at + 1, std::min(most, at + 1 - start));
    if (repeated < dry.allowed_length) continue;
    int32_t& known = longest[tokens_[at + 1]];
    known = std::max(known, repeated);
  }
  for (const auto& [token, repeated] : longest) {
    logits[static_cast<size_t>(token)] -=
        kernels::DryPenalty(dry.multiplier, dry.base, repeated - dry.allowed_length);
  }
}

}  // namespace behemoth::worker
