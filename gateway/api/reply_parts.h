// The pieces that whole replies and chunks share. Append to the caller's buffer; thread-safe.
// Included by api/'s .cc files only.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "gateway/api/replies.h"

namespace behemoth::gateway {

std::string_view FinishName(FinishReason reason);
void AppendInteger(uint64_t value, std::string& out);
void AppendIds(std::span<const uint32_t> ids, std::string& out);
void AppendUsage(const Usage& usage, std::string& out);
void AppendTimings(const Timings& timings, std::string& out);
void AppendWarnings(std::span<const Warning> warnings, std::string& out);
void AppendStopReason(const StopReason& reason, std::string& out);
// OpenAI's list of calls; `in_delta`: each with its index, without what is empty.
void AppendToolCalls(std::span<const ToolCallOut> calls, bool in_delta, std::string& out);
// {"token", "logprob", "bytes": [...]; the caller closes it.
void AppendScored(const ScoredToken& token, std::string& out);
void AppendChatLogprobs(std::span<const TokenLogprobs> logprobs, std::string& out);
// `text_offset`: code points in front of the first token.
void AppendCompletionLogprobs(std::span<const TokenLogprobs> logprobs, size_t text_offset,
                              std::string& out);
// "id":..., "object":..., "created":..., "model":..., "system_fingerprint":...
void AppendHead(const ReplyHead& head, std::string_view object, std::string& out);

}  // namespace behemoth::gateway
