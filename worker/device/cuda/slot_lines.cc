#include "worker/device/cuda/slot_lines.h"

#include <algorithm>
#include <limits>

#include "worker/sampling/token_history.h"

namespace behemoth::worker::cuda {
namespace {

constexpr float kRemoved = -std::numeric_limits<float>::infinity();

// What the kernel reads only with has_stages or has_history.
void SetStages(const SamplingParams& p, kernels::SlotSampling* slot) {
  slot->has_dynamic_temperature = p.dynamic_temperature.has_value();
  slot->has_history = p.dry.multiplier > 0 || !p.banned_sequences.empty();
  slot->has_stages = p.order != kDefaultOrder || p.dynamic_temperature.has_value() ||
                     p.typical_p < 1 || p.top_n_sigma > 0 || p.smoothing_factor > 0 ||
                     p.xtc_probability > 0;
  std::transform(p.order.begin(), p.order.end(), slot->order,
                 [](SamplerStage stage) { return static_cast<uint8_t>(stage); });
  slot->typical_p = p.typical_p;
  slot->top_n_sigma = p.top_n_sigma;
  slot->xtc_probability = p.xtc_probability;
  slot->xtc_threshold = p.xtc_threshold;
  slot->smoothing_factor = p.smoothing_factor;
  slot->smoothing_curve = p.smoothing_curve;
  const DynamicTemperature dynamic = p.dynamic_temperature.value_or(DynamicTemperature{});
  slot->dynamic_low = dynamic.low;
  slot->dynamic_high = dynamic.high;
  slot->dynamic_exponent = dynamic.exponent;
  slot->dry_multiplier = p.dry.multiplier;
  slot->dry_base = p.dry.base;
  slot->dry_allowed_length = p.dry.allowed_length;
  slot->dry_last_n = p.dry.last_n;
  slot->banned_sequences = static_cast<int32_t>(p.banned_sequences.size());
  slot->spanning_breakers = static_cast<int32_t>(p.dry.spanning_breakers.size());
}
static_assert(static_cast<int>(SamplerStage::kXtc) ==
                  static_cast<int>(kernels::SampleStage::kXtc) &&
              kSamplerStages == kernels::kSampleStages);

}  // namespace

kernels::SlotSampling SamplingOf(const SlotBinding& binding) {
  const SamplingParams& p = *binding.sampling;
  const bool penalizes =
      p.repetition_penalty != 1 || p.presence_penalty != 0 || p.frequency_penalty != 0;
  const bool has_bias = !p.allowed_ids.empty() || !p.banned_ids.empty() || !p.logit_bias.empty();
  kernels::SlotSampling slot = {
      .temperature = p.temperature,
      .top_p = p.top_p,
      .min_p = p.min_p,
      .top_k = p.top_k,
      .repetition_penalty = p.repetition_penalty,
      .presence_penalty = p.presence_penalty,
      .frequency_penalty = p.frequency_penalty,
      .sequence = binding.sequence,
      .seed = p.seed,
      .min_position = static_cast<int32_t>(binding.prompt.size()) + p.min_tokens,
      .top_logprobs = std::min(p.top_logprobs, kernels::kMaxTopLogprobs),
      .has_bias = has_bias,
      .tracks_tokens = penalizes || (p.min_tokens > 0 && !p.stop_ids.empty())};
  SetStages(p, &slot);
  return slot;
}

void FillBias(const SamplingParams& params, int32_t vocabulary, float* line) {
  std::fill_n(line, vocabulary, params.allowed_ids.empty() ? 0.0f : kRemoved);
  for (const TokenId id : params.allowed_ids) line[id] = 0;
  for (const TokenId id : params.banned_ids) line[id] = kRemoved;
  for (const TokenBias& entry : params.logit_bias) {
    line[entry.id] = entry.bias <= kBiasThatBans ? kRemoved : line[entry.id] + entry.bias;
  }
}

void FillTokenUse(const SlotBinding& binding, int32_t vocabulary, uint32_t* line) {
  std::fill_n(line, vocabulary, 0u);
  for (const TokenId id : binding.output) ++line[id];
  for (const TokenId id : binding.prompt) line[id] |= kernels::kInPrompt;
  for (const TokenId id : binding.sampling->stop_ids) line[id] |= kernels::kIsStop;
}

size_t FillHistory(const SlotBinding& binding, int32_t* line) {
  int32_t* const output = std::copy(binding.prompt.begin(), binding.prompt.end(), line);
  return static_cast<size_t>(std::copy(binding.output.begin(), binding.output.end(), output) -
                             line);
}

int32_t BreakerEnd(const SamplingParams& params, const int32_t* history, size_t count) {
  return params.dry.multiplier > 0 ? LastBreakerEnd(params.dry, {history, count}) : 0;
}

void FillBreakers(const SamplingParams& params, int32_t vocabulary, uint32_t* line) {
  std::fill_n(line, BreakerWords(vocabulary), 0u);
  for (const TokenId id : params.dry.breaker_ids) line[id / 32] |= 1u << (id % 32);
}

size_t FillPhrases(const SamplingParams& params, int32_t* line) {
  const size_t lists = params.banned_sequences.size() + 2 * params.dry.spanning_breakers.size();
  size_t list = 0, next = lists + 1;
  const auto add = [&](const std::vector<TokenId>& ids) {
    line[list++] = static_cast<int32_t>(next);
    next = static_cast<size_t>(std::copy(ids.begin(), ids.end(), line + next) - line);
  };
  for (const std::vector<TokenId>& ids : params.banned_sequences) add(ids);
  for (const SpanningBreaker& breaker : params.dry.spanning_breakers) {
    add(breaker.heads);
    add(breaker.tail);
  }
  line[list] = static_cast<int32_t>(next);
  return next;
}

}  // namespace behemoth::worker::cuda
