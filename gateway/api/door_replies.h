// Replies in the shapes that other servers' clients read: TabbyAPI, text-generation-webui,
// KoboldCpp and llama.cpp's server, as far as SillyTavern's text backends ask them (spec
// model.md 4.3). Thread-safe free functions; strings as in replies.h.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "gateway/api/replies.h"

namespace behemoth::gateway {

// POST /v1/token/encode, /v1/internal/encode: {"tokens", "length"}.
std::string TabbyTokensJson(std::span<const uint32_t> ids, std::span<const Warning> warnings);
// POST /v1/token/decode: {"text"}.
std::string TabbyTextJson(std::string_view text, std::span<const Warning> warnings);
// POST /api/extra/tokencount: {"value", "ids"}.
std::string KoboldTokensJson(std::span<const uint32_t> ids, std::span<const Warning> warnings);
// GET /v1/model: {"id", ..., "parameters": {"max_seq_len"}}.
std::string TabbyModelJson(const ModelEntry& model);
// GET /v1/internal/model/info: {"model_name", "lora_names"}.
std::string OobaModelJson(const ModelEntry& model);

// POST /completion: llama.cpp's own, not OpenAI's. One choice; a stream's chunks are `stop`: false
// with their piece of text, the last one `stop`: true.
struct LlamaChunk {
  std::string_view content;
  std::span<const uint32_t> token_ids;
  std::span<const TokenLogprobs> logprobs;  // n_probs
};
void AppendLlamaChunk(const LlamaChunk& chunk, std::string& out);
struct LlamaEnd {
  LlamaChunk chunk;  // the whole answer; empty at the end of a stream
  std::string_view model;
  FinishReason finish = FinishReason::kStop;
  StopReason stop;
  Usage usage;
  std::optional<Timings> timings;
  std::span<const Warning> warnings;
};
void AppendLlamaEnd(const LlamaEnd& end, std::string& out);

struct LlamaProps {
  std::string model;
  uint32_t context_tokens = 0;
  std::string_view chat_template, bos_token, eos_token, build;
};
// GET /props.
std::string LlamaPropsJson(const LlamaProps& props);

}  // namespace behemoth::gateway
