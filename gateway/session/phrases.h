// The texts of a request that a worker needs as ids: bad words, what of a DRY breaker stands in the
// tokens behind its first one, and the words that close a think block. Pure functions, thread-safe.
//
// A phrase is encoded as it stands inside a line: with what a tokenizer puts in front of a text's
// beginning (a space, here) it would be another one.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "gateway/api/generation_options.h"
#include "gateway/text/token_table.h"
#include "gateway/upstream/tokenizer_client.h"
#include "gateway/upstream/worker_client.h"

namespace behemoth::gateway {

// The breaker `breakers[index]`, cut behind its first `head_bytes`: a token may end with the head,
// the rest is `tail`.
struct BreakerTail {
  size_t index = 0;
  size_t head_bytes = 0;
  std::vector<uint32_t> tail;  // 1..16 ids
};

struct PhraseIds {
  std::vector<uint32_t> end_thinking;
  std::vector<std::vector<uint32_t>> bad_words;  // each with and without a space in front
  std::vector<BreakerTail> breaker_tails;
};

// What to encode; empty = nothing.
std::vector<EncodeInput> PhraseInputs(const SamplingOptions& sampling, bool thinking_budget);

// `encoded`: of those inputs. INVALID_ARGUMENT: a bad word of more than 64 tokens.
absl::StatusOr<PhraseIds> PhraseIdsOf(const SamplingOptions& sampling, bool thinking_budget,
                                      IdLists encoded);

// Tokens that hold a breaker, and those that begin one which others end: as llama.cpp's
// get_overlapping_token_sequences (src/llama-sampler.cpp) has them. A cut inside a character is
// left out: no text of its own stands behind it.
DrySpec DryOf(const DryOptions& dry, const PhraseIds& phrases, const TokenTable& table);

}  // namespace behemoth::gateway
