#include "worker/device/cuda/slot_states.h"

#include <utility>

#include "worker/device/cuda/cuda_status.h"
#include "worker/device/cuda/slot_lines.h"

namespace behemoth::worker::cuda {
namespace {

template <typename T>
absl::Status Upload(T* to, const T* from, size_t count, CUstream_st* stream) {
  return FromCuda(cudaMemcpyAsync(to, from, count * sizeof(T), cudaMemcpyHostToDevice, stream),
                  "upload of a slot's sampling state");
}

}  // namespace

SlotArrays SlotArrays::Take(Arena& arena, const RunnerLimits& limits) {
  const size_t slots = static_cast<size_t>(limits.max_sequences);
  const size_t lines = slots * static_cast<size_t>(limits.vocabulary_size);
  return {.sampling = arena.Take<kernels::SlotSampling>(slots),
          .token_use = arena.Take<uint32_t>(lines),
          .bias = arena.Take<float>(lines),
          .history = arena.Take<int32_t>(slots * static_cast<size_t>(limits.context_tokens)),
          .breaker_end = arena.Take<int32_t>(slots),
          .breakers = arena.Take<uint32_t>(slots * BreakerWords(limits.vocabulary_size)),
          .phrases = arena.Take<int32_t>(slots * kernels::kPhraseWords),
          .repeats = nullptr};
}

SlotStates::SlotStates(const RunnerLimits& limits, const SlotArrays& device,
                       std::vector<SlotArrays> staging)
    : vocabulary_(limits.vocabulary_size),
      context_(limits.context_tokens),
      device_(device),
      staging_(std::move(staging)),
      tops_(static_cast<size_t>(limits.max_sequences), -1) {}

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
  if (sampling.has_history != 0) status.Update(BindHistory(binding, from, stream));
  from.sampling[slot] = sampling;
  status.Update(Upload(device_.sampling + slot, from.sampling + slot, 1, stream));
  return status;
}

absl::Status SlotStates::BindHistory(const SlotBinding& binding, const SlotArrays& from,
                                     CUstream_st* stream) {
  const SamplingParams& p = *binding.sampling;
  const size_t slot = static_cast<size_t>(binding.slot);
  const size_t words = BreakerWords(vocabulary_);
  const size_t line = slot * static_cast<size_t>(context_);
  int32_t* const history = from.history + line;
  const size_t known = FillHistory(binding, history);
  from.breaker_end[slot] = BreakerEnd(p, history, known);
  uint32_t* const breakers = from.breakers + slot * words;
  FillBreakers(p, vocabulary_, breakers);
  int32_t* const phrases = from.phrases + slot * kernels::kPhraseWords;
  const size_t phrase_words = FillPhrases(p, phrases);
  absl::Status status = Upload(device_.history + line, history, known, stream);
  status.Update(Upload(device_.breaker_end + slot, from.breaker_end + slot, 1, stream));
  status.Update(Upload(device_.breakers + slot * words, breakers, words, stream));
  status.Update(
      Upload(device_.phrases + slot * kernels::kPhraseWords, phrases, phrase_words, stream));
  if (p.dry.multiplier <= 0) return status;
  const size_t bytes = static_cast<size_t>(context_) * sizeof(uint32_t);
  status.Update(FromCuda(cudaMemsetAsync(device_.repeats + line, 0, bytes, stream),
                         "reset of a slot's repeats"));
  return status;
}

}  // namespace behemoth::worker::cuda
