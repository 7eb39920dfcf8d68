// A slot's sampling state as the kernel reads it, out of a binding: one line of each array of
// slot_states.h. Pure and of the host alone, so that tests hold it against the CPU's sampler.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/sampling/sampling.h"
#include "worker/schedule/step_plan.h"

namespace behemoth::worker::cuda {

kernels::SlotSampling SamplingOf(const SlotBinding& binding);
// [vocabulary]; if has_bias.
void FillBias(const SamplingParams& params, int32_t vocabulary, float* line);
// [vocabulary]; if tracks_tokens.
void FillTokenUse(const SlotBinding& binding, int32_t vocabulary, uint32_t* line);

// The rest if has_history. Prompt and output, at most the context; returns how many they are.
size_t FillHistory(const SlotBinding& binding, int32_t* line);
// Where the last breaker in `history` ends: DRY looks no further back.
int32_t BreakerEnd(const SamplingParams& params, const int32_t* history, size_t count);
constexpr size_t BreakerWords(int32_t vocabulary) {
  return (static_cast<size_t>(vocabulary) + 31) / 32;
}
// [BreakerWords]: a bit for each id that is a breaker by itself.
void FillBreakers(const SamplingParams& params, int32_t vocabulary, uint32_t* line);
// [kPhraseWords]; returns how many of them are used.
size_t FillPhrases(const SamplingParams& params, int32_t* line);

}  // namespace behemoth::worker::cuda
