#include "worker/sampling/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/sampling/mass.h"
#include "kernels/sampling/sampling.h"
#include "kernels/sampling/stage_math.h"
#include "worker/sampling/stages.h"

namespace behemoth::worker {
namespace {

constexpr float kRemoved = -std::numeric_limits<float>::infinity();

bool IsUsable(std::span<const float> logits) {
  return std::all_of(logits.begin(), logits.end(),
                     [](float logit) { return logit < std::numeric_limits<float>::infinity(); });
}

// Lowest id of the largest logit.
TokenId ArgMax(std::span<const float> logits) {
  return static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

}  // namespace

SamplerState::SamplerState(int32_t vocabulary_size)
    : params_(std::make_shared<const SamplingParams>()),
      output_counts_(vocabulary_size),
      in_prompt_(vocabulary_size) {}

void SamplerState::Bind(const SlotBinding& binding) {
  params_ = binding.sampling;
  sequence_ = binding.sequence;
  output_length_ = 0;
  last_token_ = -1;
  std::fill(output_counts_.begin(), output_counts_.end(), 0);
  std::fill(in_prompt_.begin(), in_prompt_.end(), 0);
  for (const TokenId id : binding.prompt) in_prompt_[id] = 1;
  history_.Bind(*params_, binding.prompt);
  for (const TokenId id : binding.output) Count(id);
  is_allowed_.clear();
  if (!params_->allowed_ids.empty()) {
    is_allowed_.assign(in_prompt_.size(), 0);
    for (const TokenId id : params_->allowed_ids) is_allowed_[id] = 1;
  }
}

void SamplerState::Count(TokenId token) {
  ++output_counts_[token];
  ++output_length_;
  last_token_ = token;
  history_.Append(token);
}

void SamplerState::ApplyMasks(std::span<float> logits, std::span<const uint32_t> allowed) const {
  for (size_t id = 0; id < logits.size() && !allowed.empty(); ++id) {
    if ((allowed[id / 32] >> (id % 32) & 1) == 0) logits[id] = kRemoved;
  }
  for (size_t id = 0; id < is_allowed_.size(); ++id) {
    if (!is_allowed_[id]) logits[id] = kRemoved;
  }
  for (const TokenId id : params_->banned_ids) logits[id] = kRemoved;
  if (output_length_ < params_->min_tokens) {
    for (const TokenId id : params_->stop_ids) logits[id] = kRemoved;
  }
  for (const TokenBias& entry : params_->logit_bias) {
    logits[entry.id] = entry.bias <= kBiasThatBans ? kRemoved : logits[entry.id] + entry.bias;
  }
}

void SamplerState::ApplyPenalties(std::span<float> logits) const {
  const SamplingParams& p = *params_;
  if (p.repetition_penalty == 1 && p.frequency_penalty == 0 && p.presence_penalty == 0) return;
  for (size_t id = 0; id < logits.size(); ++id) {
    const int32_t count = output_counts_[id];
    if (count == 0 && !in_prompt_[id]) continue;
    float& logit = logits[id];
    logit = logit > 0 ? logit / p.repetition_penalty : logit * p.repetition_penalty;
    if (count == 0) continue;
    logit = std::fma(-p.frequency_penalty, static_cast<float>(count), logit);
    logit -= p.presence_penalty;
  }
}

// At temperature 1, of the tokens that are left.
float SamplerState::TemperatureOf(std::span<const float> logits, float largest) {
  const SamplingParams& p = *params_;
  if (!p.dynamic_temperature) return std::max(p.temperature, kernels::kGreedyTemperature);
  kernels::Entropy entropy = {0, 0, 0};
  for (const float logit : logits) {
    if (logit == kRemoved) continue;
    const uint32_t mass = kernels::MassOf(logit - largest);
    ++entropy.count;
    entropy.total += mass;
    if (mass > 0) entropy.weighted += uint64_t{mass} * kernels::SurprisalOf(mass);
  }
  const DynamicTemperature& d = *p.dynamic_temperature;
  return kernels::DynamicTemperatureOf(entropy, {d.low, d.high, d.exponent},
                                       kernels::kGreedyTemperature);
}

void SamplerState::ApplyTemperature(std::span<float> logits, bool neutral) {
  for (size_t id = 0; id < logits.size() && is_cut_; ++id) {
    if (masses_[id] == 0) logits[id] = kRemoved;
  }
  const float largest = logits[ArgMax(logits)];
  const float inverse = neutral ? 1.0f : 1.0f / TemperatureOf(logits, largest);
  const float factor = neutral ? 0.0f : params_->smoothing_factor;
  scaled_.resize(logits.size());
  for (size_t id = 0; id < logits.size(); ++id) {
    scaled_[id] =
        kernels::Smooth((logits[id] - largest) * inverse, factor, params_->smoothing_curve);
  }
  masses_.resize(logits.size());
  sampling::ToMasses(scaled_, factor > 0 ? scaled_[ArgMax(scaled_)] : 0.0f, masses_);
}

// Keeps logits within n standard deviations of the largest; the deviation is over what is left.
void SamplerState::ApplyTopNSigma() {
  const auto is_left = [&](size_t id) {
    return scaled_[id] > kRemoved && (!is_cut_ || masses_[id] > 0);
  };
  float largest = kRemoved;
  for (size_t id = 0; id < scaled_.size(); ++id) {
    if (is_left(id)) largest = std::max(largest, scaled_[id]);
  }
  uint64_t sum = 0, squares = 0;
  uint32_t count = 0;
  for (size_t id = 0; id < scaled_.size(); ++id) {
    if (!is_left(id)) continue;
    const uint64_t distance = kernels::FixedDistance(largest - scaled_[id]);
    ++count;
    sum += distance;
    squares += distance * distance;
  }
  const float most = kernels::Deviations(params_->top_n_sigma, count, sum, squares);
  for (size_t id = 0; id < scaled_.size(); ++id) {
    if (largest - scaled_[id] > most) masses_[id] = 0;
  }
}

void SamplerState::ApplyStage(SamplerStage stage, std::span<float> logits, int32_t position) {
  const SamplingParams& p = *params_;
  if (stage == SamplerStage::kTemperature) return ApplyTemperature(logits, /*neutral=*/false);
  if (stage == SamplerStage::kTopNSigma && p.top_n_sigma > 0) {
    ApplyTopNSigma();
  } else if (stage == SamplerStage::kTypicalP && p.typical_p < 1) {
    sampling::TypicalP(masses_, p.typical_p);
  } else if (stage == SamplerStage::kMinP && p.min_p > 0) {
    sampling::MinP(masses_, p.min_p);
  } else if (stage == SamplerStage::kTopK && p.top_k > 0) {
    sampling::TopK(masses_, p.top_k, heap_);
  } else if (stage == SamplerStage::kTopP && p.top_p < 1) {
    sampling::TopP(masses_, p.top_p, heap_);
  } else if (stage == SamplerStage::kXtc && p.xtc_threshold <= kernels::kMaxXtcThreshold &&
             kernels::XtcHappens(p.seed, sequence_, position, p.xtc_probability)) {
    sampling::Xtc(masses_, p.xtc_threshold);
  } else {
    return;
  }
  is_cut_ = true;
}

TokenId SamplerState::Draw(std::span<float> logits, int32_t position) {
  is_cut_ = false;
  if (params_->order[0] != SamplerStage::kTemperature) ApplyTemperature(logits, /*neutral=*/true);
  for (const SamplerStage stage : params_->order) ApplyStage(stage, logits, position);
  return sampling::Draw(masses_, kernels::DrawBits(params_->seed, sequence_, position));
}

SampleResult SamplerState::Sample(std::span<float> logits, int32_t position,
                                  std::span<const uint32_t> allowed) {
  const SamplingParams& p = *params_;
  SampleResult result;
  result.finite = IsUsable(logits);
  if (!result.finite) return result;
  std::vector<float> raw;
  if (p.top_logprobs >= 0) raw.assign(logits.begin(), logits.end());

  ApplyMasks(logits, allowed);
  history_.BanCompletions(logits);
  history_.PenalizeRepeats(logits);
  ApplyPenalties(logits);
  const float largest = logits[ArgMax(logits)];
  result.finite = std::isfinite(largest);  // -inf: everything is masked
  if (!result.finite) return result;
  if (!p.dynamic_temperature && p.temperature < kernels::kGreedyTemperature) {
    result.token = ArgMax(logits);
  } else {
    result.token = Draw(logits, position);
  }
  Count(result.token);
  if (p.top_logprobs >= 0) result.logprobs = ScoreToken(raw, result.token, p.top_logprobs);
  return result;
}

TokenLogprobs ScoreToken(std::span<const float> logits, TokenId token, int32_t top) {
  const float largest = logits[ArgMax(logits)];
  double mass = 0;
  int32_t larger = 0;
  for (const float logit : logits) {
    mass += std::exp(static_cast<double>(logit - largest));
    larger += logit > logits[token];
  }
  const double normalizer = static_cast<double>(largest) + std::log(mass);
  const auto logprob = [&](TokenId id) { return static_cast<float>(logits[id] - normalizer); };

  TokenLogprobs score;
  score.logprob = logprob(token);
  score.rank = 1 + larger;
  const size_t count = std::min<size_t>(static_cast<size_t>(std::max(top, 0)), logits.size());
  if (count == 0) return score;
  std::vector<TokenId> ids(logits.size());
  for (size_t id = 0; id < ids.size(); ++id) ids[id] = static_cast<TokenId>(id);
  std::partial_sort(
      ids.begin(), ids.begin() + static_cast<ptrdiff_t>(count), ids.end(),
      [&](TokenId a, TokenId b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
  score.top_ids.assign(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(count));
  for (const TokenId id : score.top_ids) score.top_logprobs.push_back(logprob(id));
  return score;
}

}  // namespace behemoth::worker
