// Logits -> next token, for a batch of rows with parameters of their own, all on the device.
//
// Order (worker/sampling/sampling_params.h): raw logits kept for logprobs -> bias, bans, allowed
// ids (one table, and the row's mask), stop ids before min_tokens, banned sequences -> DRY ->
// repetition, frequency, presence -> greedy argmax where temperature < 1e-5 (lowest id wins a tie)
// -> the stages in the slot's order -> draw.
//
// After temperature a token's probability is an integer *mass*, round(2^31 exp((x - max) / T)):
//   min_p  keeps mass >= min_p * the largest;
//   top_k  keeps mass >= that of the k-th largest: ties stay;
//   top_p  keeps the fewest largest masses that hold top_p of what is left: ties stay;
//   the others: stage_math.h and worker/sampling/README.md;
//   draw   u = DrawBits(seed, sequence, position) scaled to the total; the first id, in ascending
//          order, whose running sum exceeds u.
// All of it is exact integer arithmetic (mass.h), so a token is the same bits of the same logits on
// any device, in any batch, and in the reference.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/kernel_error.h"
#include "kernels/common/launch_context.h"

namespace behemoth::kernels {

inline constexpr int kMaxTopLogprobs = 20;
inline constexpr int kMaxVocabulary = 262144;
inline constexpr int64_t kMaxHistory = int64_t{1} << 21;
inline constexpr int kMaxDryAllowedLength = 1024;
inline constexpr int kHeldVocabulary = 32768;  // up to here a row lives in registers
inline constexpr float kGreedyTemperature = 1e-5f;

// From temperature on, in the default order; the numbers of worker::SamplerStage.
enum class SampleStage : uint8_t {
  kTemperature,
  kTopNSigma,
  kTypicalP,
  kMinP,
  kTopK,
  kTopP,
  kXtc,
};
inline constexpr int kSampleStages = 7;

// What a slot's sequence asks of the sampler; written by the host when the slot is bound.
struct SlotSampling {
  float temperature = 1.0f;
  float top_p = 1.0f;
  float min_p = 0.0f;
  int32_t top_k = 0;  // <= 0: off
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  int32_t sequence = 0;
  uint64_t seed = 0;
  int32_t min_position = 0;   // sampled positions below it must not be a stop id
  int32_t top_logprobs = -1;  // -1: none; 0..20: the chosen token's and the top n
  uint8_t has_bias = 0;       // read the slot's line of SampleArgs::bias
  uint8_t tracks_tokens = 0;  // read and update the slot's line of SampleArgs::token_use
  // Another order than the default one, or one of the samplers below. Without it they are not read.
  uint8_t has_stages = 0;
  uint8_t has_dynamic_temperature = 0;  // instead of `temperature`; needs has_stages
  uint8_t has_history = 0;              // read and extend the slot's line of SampleArgs::history
  uint8_t order[kSampleStages] = {0, 1, 2, 3, 4, 5, 6};  // SampleStage, each once
  float typical_p = 1.0f;
  float top_n_sigma = 0.0f;
  float xtc_probability = 0.0f;
  float xtc_threshold = 0.1f;
  float smoothing_factor = 0.0f;
  float smoothing_curve = 1.0f;
  float dynamic_low = 0.0f;
  float dynamic_high = 0.0f;
  float dynamic_exponent = 1.0f;
  // With has_history; what they look back at.
  float dry_multiplier = 0.0f;  // 0: no DRY
  float dry_base = 1.75f;
  int32_t dry_allowed_length = 2;  // 1..kMaxDryAllowedLength
  int32_t dry_last_n = 0;          // 0: all
  int32_t banned_sequences = 0;    // how many the slot's line of SampleArgs::phrases has
  int32_t spanning_breakers = 0;
};

// A slot's line of SampleArgs::phrases holds lists of ids: those of the banned sequences, then for
// each spanning breaker its heads and its tail. List i is words [line[i], line[i + 1]) of the line.
inline constexpr int kMaxBannedSequences = 1024;
inline constexpr int kMaxSpanningBreakers = 1024;
inline constexpr int kMaxBannedIds = 16384;    // of all banned sequences
inline constexpr int kMaxSpanningIds = 16384;  // of all spanning breakers
inline constexpr int kPhraseWords =
    kMaxBannedSequences + 2 * kMaxSpanningBreakers + 1 + kMaxBannedIds + kMaxSpanningIds;

// A word of token_use: how often the sequence has put the token out, and two marks.
inline constexpr uint32_t kInPrompt = 1u << 31;
inline constexpr uint32_t kIsStop = 1u << 30;
inline constexpr uint32_t kOutputCount = kIsStop - 1;

enum class SampleStatus : uint32_t {
  kOk = 0,
  kNotFinite = 1,       // NaN or +inf among the raw logits
  kNothingAllowed = 2,  // every token is banned
};

struct SampleOutput {
  int32_t token;  // 0 unless status is kOk
  SampleStatus status;
  float logprob;  // of the token, from the raw logits; 0 unless asked for
  int32_t rank;   // 1 = no raw logit is larger; 0 unless asked for
};
struct TopToken {
  int32_t id;
  float logprob;
};

struct SampleArgs {
  const void* logits = nullptr;  // [*, logits_stride], 16-byte aligned
  bool logits_are_bf16 = false;  // else fp32
  int64_t logits_stride = 0;     // elements, % 8 == 0, >= vocabulary
  int vocabulary = 0;
  const int32_t* logits_row = nullptr;  // [rows]; null: row r reads line r
  const int32_t* slot = nullptr;        // [rows]; < 0: an inactive row, nothing is written
  const int32_t* position = nullptr;    // [rows], of the sampled token in its sequence
  // [rows] or null. Given: nothing is drawn or remembered, `out` and `top` get the logprobs of this
  // token, whatever the slot's top_logprobs; ids within the vocabulary.
  const int32_t* score_token = nullptr;
  const SlotSampling* sampling = nullptr;  // [slots]
  uint32_t* token_use = nullptr;           // [slots, vocabulary]; null if no slot tracks tokens
  const float* bias = nullptr;  // [slots, vocabulary], -inf = banned; null if no slot has a bias
  // Lines of ceil(vocabulary / 32) words: bit i % 32 of word i / 32 set = id i is allowed. Null =
  // no row has one. Row r reads line mask_line[r]; < 0: everything is allowed.
  const uint32_t* mask = nullptr;
  const int32_t* mask_line = nullptr;  // [rows], with `mask`
  // Of slots with has_history; null if there are none. A sequence's ids before `position`; the
  // sampled one is added. Ids are within the vocabulary.
  int32_t* history = nullptr;      // [slots, history_stride]
  int64_t history_stride = 0;      // > every position, <= kMaxHistory
  int32_t* breaker_end = nullptr;  // [slots]: behind the last DRY breaker, as far as known
  // [slots, history_stride], the kernel's own: what a step knows of repeats, for the next one. The
  // host zeroes a slot's line when it binds the slot to a sequence with DRY.
  uint32_t* repeats = nullptr;
  const uint32_t* breakers = nullptr;  // [slots, ceil(vocabulary / 32)]: bit set = a breaker
  const int32_t* phrases = nullptr;    // [slots, kPhraseWords]
  int32_t* slot_token = nullptr;       // [slots] or null: the token for the next step's embedding
  SampleOutput* out = nullptr;         // [rows]
  TopToken* top = nullptr;      // [rows, 20] or null; the first top_logprobs of a row are written
  uint32_t* scratch = nullptr;  // SampleScratchBytes()
  int rows = 0;
};

// Rows beyond kHeldVocabulary and those with has_stages or has_history use it.
size_t SampleScratchBytes(int vocabulary, int rows);

// Starts a slot's line of token_use: zeroes it, then marks prompt and stop ids and counts output
// ids. Ids outside the vocabulary are skipped. Device pointers.
struct TokenUseArgs {
  uint32_t* line = nullptr;  // [vocabulary]
  int vocabulary = 0;
  const int32_t* prompt = nullptr;
  int prompt_count = 0;
  const int32_t* output = nullptr;
  int output_count = 0;
  const int32_t* stop = nullptr;
  int stop_count = 0;
};

// Builds with CUDA only. Both only enqueue.
KernelError LaunchSample(const SampleArgs& args, const LaunchContext& context);
KernelError LaunchTokenUse(const TokenUseArgs& args, const LaunchContext& context);

namespace reference {
void Sample(const SampleArgs& args);
void TokenUse(const TokenUseArgs& args);
}  // namespace reference

}  // namespace behemoth::kernels
