// Typed replies -> JSON text. Thread-compatible values; the functions are thread-safe.
//
// Every string that comes out is valid UTF-8 whatever bytes go in (bad bytes become U+FFFD).
// Writers append to the caller's buffer, so that a stream reuses one allocation.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/api/generation_options.h"

namespace behemoth::gateway {

enum class FinishReason { kStop, kLength, kCancelled, kToolCalls };

// What stop_reason says: the stop string, the stop id, or null (neither set).
struct StopReason {
  std::optional<std::string> text;
  std::optional<uint32_t> id;
};

struct Usage {
  uint32_t prompt_tokens = 0;
  uint32_t cached_tokens = 0;
  uint32_t completion_tokens = 0;  // all choices together
  uint32_t reasoning_tokens = 0;
};

struct Timings {
  double queue_ms = 0;
  double prefill_ms = 0;
  double decode_ms = 0;
  double ttft_ms = 0;
  double tokens_per_second = 0;
  uint32_t cached_tokens = 0;
  uint32_t prefill_tokens = 0;
  uint32_t draft_accepted = 0;
  uint32_t preemptions = 0;
};

// A token as logprobs show it. `bytes` is exact, half a character included; the token string is
// the same bytes as text. The views outlive the call that writes them.
struct ScoredToken {
  uint32_t id = 0;
  std::string_view bytes;
  float logprob = 0;
};

struct TokenLogprobs {
  ScoredToken token;
  uint32_t rank = 0;             // 1 = most likely
  std::vector<ScoredToken> top;  // most likely first
};

// What stays the same over all replies and chunks of a request.
struct ReplyHead {
  std::string id;  // "chatcmpl-..." or "cmpl-..."
  int64_t created_s = 0;
  std::string model;
  std::string system_fingerprint;
};

// A call of the model's, whole in a reply; in a delta what is new of it.
struct ToolCallOut {
  uint32_t index = 0;
  std::string id;         // 9 of [a-zA-Z0-9]; as the name in the delta that begins the call alone
  std::string name;       // a function's
  std::string arguments;  // JSON text
};

// Text out: one choice's next piece. An empty piece is left out of the delta.
struct ChatDelta {
  std::string_view content;
  std::string_view reasoning;
  std::span<const ToolCallOut> calls;
};

struct ChatChoice {
  uint32_t index = 0;
  std::string content;
  std::optional<std::string> reasoning;  // present (perhaps empty) if the format is kSeparate
  std::vector<ToolCallOut> calls;        // in their order; with some an empty content is null
  FinishReason finish = FinishReason::kStop;
  StopReason stop_reason;
  std::optional<std::vector<TokenLogprobs>> logprobs;
  std::optional<std::vector<uint32_t>> token_ids;
};

struct CompletionChoice {
  uint32_t index = 0;
  std::string text;
  std::optional<std::string> reasoning;
  FinishReason finish = FinishReason::kStop;
  StopReason stop_reason;
  std::optional<std::vector<TokenLogprobs>> logprobs;
  size_t logprobs_text_offset = 0;  // code points in front of the first token (echo)
  std::optional<std::vector<uint32_t>> token_ids;
  std::optional<std::vector<uint32_t>> prompt_token_ids;
};

// What stands beside the choices of a whole reply.
struct ReplyTail {
  Usage usage;
  std::optional<Timings> timings;
  std::optional<std::vector<uint32_t>> prompt_token_ids;  // chat, return_token_ids
  std::optional<std::vector<std::optional<TokenLogprobs>>> prompt_logprobs;  // [0] is null
  std::span<const Warning> warnings;
};

std::string ChatReplyJson(const ReplyHead& head, std::span<const ChatChoice> choices,
                          const ReplyTail& tail);
std::string CompletionReplyJson(const ReplyHead& head, std::span<const CompletionChoice> choices,
                                const ReplyTail& tail);

struct ModelEntry {
  std::string id;
  std::string root;
  int64_t created_s = 0;
  uint32_t max_model_len = 0;
};
std::string ModelListJson(std::span<const ModelEntry> models);
std::string ModelJson(const ModelEntry& model);

struct TokenizeReply {
  std::span<const uint32_t> ids;
  uint32_t max_model_len = 0;
  std::optional<std::vector<std::string_view>> token_bytes;  // token_strs
  std::span<const Warning> warnings;
};
std::string TokenizeReplyJson(const TokenizeReply& reply);
std::string DetokenizeReplyJson(std::string_view text, std::span<const Warning> warnings);

struct RenderedToken {
  uint32_t id = 0;
  std::string_view bytes;
  bool control = false;
};
// {"prompt", "token_ids", "tokens": [{"id", "text", "control"}], "count", "warnings"?}
std::string RenderReplyJson(std::string_view prompt, std::span<const RenderedToken> tokens,
                            std::span<const Warning> warnings);

}  // namespace behemoth::gateway
