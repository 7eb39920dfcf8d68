// Logits -> next token, for a batch of rows with parameters of their own, all on the device.
//
// Order (worker/sampling/sampling_params.h): raw logits kept for logprobs -> bias, bans, allowed
// ids (one table) and stop ids before min_tokens -> repetition, frequency, presence -> greedy
// argmax where temperature < 1e-5 (lowest id wins a tie) -> temperature -> min_p -> top_k -> top_p
// -> draw.
//
// After temperature a token's probability is an integer *mass*, round(2^31 exp((x - max) / T)):
//   min_p  keeps mass >= min_p * 2^31;
//   top_k  keeps mass >= that of the k-th largest: ties stay;
//   top_p  keeps the fewest largest masses that hold top_p of what is left: ties stay;
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
inline constexpr int kHeldVocabulary = 32768;  // up to here a row lives in registers
inline constexpr float kGreedyTemperature = 1e-5f;

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
};

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
  int32_t* slot_token = nullptr;       // [slots] or null: the token for the next step's embedding
  SampleOutput* out = nullptr;         // [rows]
  TopToken* top = nullptr;      // [rows, 20] or null; the first top_logprobs of a row are written
  uint32_t* scratch = nullptr;  // SampleScratchBytes()
  int rows = 0;
};

// 0 where a row fits the registers.
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
