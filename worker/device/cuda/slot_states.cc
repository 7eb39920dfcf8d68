#include "worker/device/cuda/slot_states.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "worker/device/cuda/cuda_status.h"

namespace behemoth::worker::cuda {
namespace {

constexpr float kRemoved = -std::numeric_limits<float>::infinity();
constexpr float kBiasThatBans = -100.0f;  // the OpenAI API's meaning of its lower limit

template <typename T>
absl::Status Upload(T* to, const T* from, size_t count, CUstream_st* stream) {
  return FromCuda(cudaMemcpyAsync(to, from, count * sizeof(T), cudaMemcpyHostToDevice, stream),
                  "upload of a slot's sampling state");
}

}  // namespace

SlotArrays SlotArrays::Take(Arena& arena, int32_t slots, int32_t vocabulary) {
  const size_t lines = static_cast<size_t>(slots) * static_cast<size_t>(vocabulary);
  return {.sampling = arena.Take<kernels::SlotSampling>(static_cast<size_t>(slots)),
          .token_use = arena.Take<uint32_t>(lines),
          .bias = arena.Take<float>(lines)};
}

kernels::SlotSampling SamplingOf(const SlotBinding& binding) {
  const SamplingParams& p = *binding.sampling;
  const bool penalizes =
      p.repetition_penalty != 1 || p.presence_penalty != 0 || p.frequency_penalty != 0;
  const bool has_bias = !p.allowed_ids.empty() || !p.banned_ids.empty() || !p.logit_bias.empty();
  return {.temperature = p.temperature,
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

SlotStates::SlotStates(int32_t slots, int32_t vocabulary, const SlotArrays& device,
                       std::vector<SlotArrays> staging)
    : vocabulary_(vocabulary),
      device_(device),
      staging_(std::move(staging)),
      tops_(static_cast<size_t>(slots), -1) {}

absl::Status SlotStates::Bind(const std::vector<SlotBinding>& bindings, size_t staging,
                              CUstream_st* stream) {
  for (const SlotBinding& binding : bindings) {
    absl::Status bound = BindOne(binding, staging_[staging], stream);
    if (!bound.ok()) return bound;
  }
  return absl::OkStatus();
}

absl::Status SlotStates::BindOne(const SlotBinding& binding, const SlotArrays& from,
                                 CUstream_st* stream) {
  const size_t slot = static_cast<size_t>(binding.slot);
  const size_t line = slot * static_cast<size_t>(vocabulary_);
  const size_t count = static_cast<size_t>(vocabulary_);
  const kernels::SlotSampling sampling = SamplingOf(binding);
  tops_[slot] = sampling.top_logprobs;
  absl::Status status;
  if (sampling.has_bias != 0) {
    FillBias(*binding.sampling, vocabulary_, from.bias + line);
    status.Update(Upload(device_.bias + line, from.bias + line, count, stream));
  }
  if (sampling.tracks_tokens != 0) {
    FillTokenUse(binding, vocabulary_, from.token_use + line);
    status.Update(Upload(device_.token_use + line, from.token_use + line, count, stream));
  }
  from.sampling[slot] = sampling;
  status.Update(Upload(device_.sampling + slot, from.sampling + slot, 1, stream));
  return status;
}

}  // namespace behemoth::worker::cuda
