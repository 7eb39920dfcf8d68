#include "gateway/api/chunk_writer.h"

#include "gateway/api/json_writer.h"
#include "gateway/api/reply_parts.h"

namespace behemoth::gateway {

ChunkWriter::ChunkWriter(Kind kind, const ReplyHead& head, bool include_usage)
    : kind_(kind), include_usage_(include_usage) {
  head_.push_back('{');
  AppendHead(head, kind == Kind::kChat ? "chat.completion.chunk" : "text_completion", head_);
  head_ += R"(,"choices":[)";
}

void ChunkWriter::OpenChoice(uint32_t index, std::string& out) const {
  out += head_;
  out += R"({"index":)";
  AppendInteger(index, out);
}

void ChunkWriter::CloseChoice(const ChunkExtras& extras, std::string_view finish_fields,
                              std::string& out) const {
  out += R"(,"logprobs":)";
  if (extras.logprobs.empty()) {
    out += "null";
  } else if (kind_ == Kind::kChat) {
    AppendChatLogprobs(extras.logprobs, out);
  } else {
    AppendCompletionLogprobs(extras.logprobs, extras.text_offset.value_or(0), out);
  }
  out += finish_fields;
  if (!extras.token_ids.empty()) {
    out += R"(,"token_ids":)";
    AppendIds(extras.token_ids, out);
  }
  out += "}]";
  if (extras.usage) {
    out += R"(,"usage":)";
    AppendUsage(*extras.usage, out);
  } else if (include_usage_) {
    out += R"(,"usage":null)";
  }
}

void ChunkWriter::Role(uint32_t index, std::string& out) const {
  OpenChoice(index, out);
  out += R"(,"delta":{"role":"assistant","content":""})";
  CloseChoice({}, R"(,"finish_reason":null)", out);
  out += '}';
}

void ChunkWriter::Chat(uint32_t index, const ChatDelta& delta, const ChunkExtras& extras,
                       std::string& out) const {
  OpenChoice(index, out);
  out += R"(,"delta":{)";
  if (!delta.reasoning.empty()) {
    out += R"("reasoning_content":)";
    AppendJsonString(delta.reasoning, out);
  }
  if (!delta.content.empty()) {
    if (!delta.reasoning.empty()) out += ',';
    out += R"("content":)";
    AppendJsonString(delta.content, out);
  }
  if (!delta.calls.empty()) {
    if (!delta.reasoning.empty() || !delta.content.empty()) out += ',';
    out += R"("tool_calls":)";
    AppendToolCalls(delta.calls, /*in_delta=*/true, out);
  }
  out += '}';
  CloseChoice(extras, R"(,"finish_reason":null)", out);
  out += '}';
}

void ChunkWriter::Completion(uint32_t index, const ChatDelta& delta, const ChunkExtras& extras,
                             std::string& out) const {
  OpenChoice(index, out);
  out += R"(,"text":)";
  AppendJsonString(delta.content, out);
  if (!delta.reasoning.empty()) {
    out += R"(,"reasoning":)";
    AppendJsonString(delta.reasoning, out);
  }
  CloseChoice(extras, R"(,"finish_reason":null)", out);
  out += '}';
}

void ChunkWriter::Finish(uint32_t index, const ChunkFinish& finish, const ChunkExtras& extras,
                         std::span<const Warning> warnings, std::string& out) const {
  OpenChoice(index, out);
  out += kind_ == Kind::kChat ? R"(,"delta":{})" : R"(,"text":"")";
  std::string fields = R"(,"finish_reason":")";
  fields += FinishName(finish.reason);
  fields += R"(","stop_reason":)";
  AppendStopReason(finish.stop_reason, fields);
  CloseChoice(extras, fields, out);
  if (!warnings.empty()) {
    out += R"(,"warnings":)";
    AppendWarnings(warnings, out);
  }
  out += '}';
}

void ChunkWriter::Closing(const std::optional<Usage>& usage, const std::optional<Timings>& timings,
                          std::string& out) const {
  out += head_;
  out += ']';
  if (usage) {
    out += R"(,"usage":)";
    AppendUsage(*usage, out);
  }
  if (timings) {
    out += R"(,"timings":)";
    AppendTimings(*timings, out);
  }
  out += '}';
}

}  // namespace behemoth::gateway
