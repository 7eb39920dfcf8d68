// The JSON of one stream's chunks ("data: " and framing are http/'s). Thread-compatible: one per
// request, on its loop.
//
// The hot path of the gateway: what never changes is rendered once, a chunk is then a few appends
// to the caller's buffer and one pass of escaping over the text.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "gateway/api/replies.h"

namespace behemoth::gateway {

// Beside the text of a chunk; all empty in the usual case.
struct ChunkExtras {
  std::span<const TokenLogprobs> logprobs;
  std::span<const uint32_t> token_ids;
  std::optional<Usage> usage;         // continuous_usage_stats
  std::optional<size_t> text_offset;  // completions' logprobs: code points in front
};

struct ChunkFinish {
  FinishReason reason = FinishReason::kStop;
  StopReason stop_reason;
};

class ChunkWriter {
 public:
  enum class Kind { kChat, kCompletion };
  // `include_usage`: every chunk but the last then carries "usage": null (OpenAI).
  ChunkWriter(Kind kind, const ReplyHead& head, bool include_usage);

  // Each call appends exactly one JSON object, without a line break anywhere in it, to `out`.

  // Chat only: the first chunk of a choice, delta {"role": "assistant", "content": ""}.
  void Role(uint32_t index, std::string& out) const;
  void Chat(uint32_t index, const ChatDelta& delta, const ChunkExtras& extras,
            std::string& out) const;
  void Completion(uint32_t index, const ChatDelta& delta, const ChunkExtras& extras,
                  std::string& out) const;
  // The choice's last chunk: an empty delta, finish_reason and stop_reason. `warnings` only where
  // something is to be said; they ride on this chunk.
  void Finish(uint32_t index, const ChunkFinish& finish, const ChunkExtras& extras,
              std::span<const Warning> warnings, std::string& out) const;
  // After all choices: "choices": [] and usage; timings if asked for.
  void Closing(const std::optional<Usage>& usage, const std::optional<Timings>& timings,
               std::string& out) const;

 private:
  void OpenChoice(uint32_t index, std::string& out) const;
  void CloseChoice(const ChunkExtras& extras, std::string_view finish_fields,
                   std::string& out) const;

  const Kind kind_;
  const bool include_usage_;
  std::string head_;  // up to and with "choices":[
};

}  // namespace behemoth::gateway
