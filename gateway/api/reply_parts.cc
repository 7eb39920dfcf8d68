#include "gateway/api/reply_parts.h"

#include <charconv>
#include <cstddef>

#include "gateway/api/json_writer.h"

namespace behemoth::gateway {
namespace {

void AppendField(std::string_view name, double value, std::string& out) {
  out += name;
  AppendJsonNumber(value, out);
}

void AppendField(std::string_view name, uint32_t value, std::string& out) {
  out += name;
  AppendInteger(value, out);
}

// Characters that begin in `bytes`: half a character counts where it begins.
size_t CodePoints(std::string_view bytes) {
  size_t count = 0;
  for (const char c : bytes) count += (static_cast<uint8_t>(c) & 0xC0) != 0x80;
  return count;
}

template <typename Range, typename Append>
void AppendList(const Range& range, std::string& out, Append append) {
  out += '[';
  bool first = true;
  for (const auto& item : range) {
    if (!first) out += ',';
    first = false;
    append(item);
  }
  out += ']';
}

}  // namespace

std::string_view FinishName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kToolCalls:
      return "tool_calls";
  }
  return "stop";
}

void AppendInteger(uint64_t value, std::string& out) {
  char text[24];
  out.append(text, std::to_chars(text, text + sizeof text, value).ptr);
}

void AppendIds(std::span<const uint32_t> ids, std::string& out) {
  AppendList(ids, out, [&](uint32_t id) { AppendInteger(id, out); });
}

void AppendUsage(const Usage& usage, std::string& out) {
  AppendField(R"({"prompt_tokens":)", usage.prompt_tokens, out);
  AppendField(R"(,"completion_tokens":)", usage.completion_tokens, out);
  out += R"(,"total_tokens":)";
  AppendInteger(uint64_t{usage.prompt_tokens} + usage.completion_tokens, out);
  AppendField(R"(,"prompt_tokens_details":{"cached_tokens":)", usage.cached_tokens, out);
  AppendField(R"(},"completion_tokens_details":{"reasoning_tokens":)", usage.reasoning_tokens, out);
  out += "}}";
}

void AppendTimings(const Timings& timings, std::string& out) {
  AppendField(R"({"queue_ms":)", timings.queue_ms, out);
  AppendField(R"(,"prefill_ms":)", timings.prefill_ms, out);
  AppendField(R"(,"decode_ms":)", timings.decode_ms, out);
  AppendField(R"(,"ttft_ms":)", timings.ttft_ms, out);
  AppendField(R"(,"tokens_per_second":)", timings.tokens_per_second, out);
  AppendField(R"(,"cached_tokens":)", timings.cached_tokens, out);
  AppendField(R"(,"prefill_tokens":)", timings.prefill_tokens, out);
  AppendField(R"(,"draft_accepted":)", timings.draft_accepted, out);
  AppendField(R"(,"preemptions":)", timings.preemptions, out);
  out += '}';
}

void AppendWarnings(std::span<const Warning> warnings, std::string& out) {
  AppendList(warnings, out, [&](const Warning& warning) {
    out += R"({"field":)";
    AppendJsonString(warning.field, out);
    out += R"(,"message":)";
    AppendJsonString(warning.message, out);
    out += '}';
  });
}

void AppendStopReason(const StopReason& reason, std::string& out) {
  if (reason.text) {
    AppendJsonString(*reason.text, out);
  } else if (reason.id) {
    AppendInteger(*reason.id, out);
  } else {
    out += "null";
  }
}

void AppendToolCalls(std::span<const ToolCallOut> calls, bool in_delta, std::string& out) {
  AppendList(calls, out, [&](const ToolCallOut& call) {
    out += '{';
    if (in_delta) {
      out += R"("index":)";
      AppendInteger(call.index, out);
      out += ',';
    }
    if (!call.id.empty()) {
      out += R"("id":)";
      AppendJsonString(call.id, out);
      out += R"(,"type":"function",)";
    }
    out += R"("function":{)";
    if (!call.name.empty()) {
      out += R"("name":)";
      AppendJsonString(call.name, out);
      out += ',';
    }
    out += R"("arguments":)";
    AppendJsonString(call.arguments, out);
    out += "}}";
  });
}

void AppendScored(const ScoredToken& token, std::string& out) {
  out += R"({"token":)";
  AppendJsonString(token.bytes, out);
  out += R"(,"logprob":)";
  AppendJsonNumber(token.logprob, out);
  out += R"(,"bytes":[)";
  for (size_t i = 0; i < token.bytes.size(); ++i) {
    if (i > 0) out += ',';
    AppendInteger(static_cast<uint8_t>(token.bytes[i]), out);
  }
  out += ']';
}

void AppendChatLogprobs(std::span<const TokenLogprobs> logprobs, std::string& out) {
  out += R"({"content":)";
  AppendList(logprobs, out, [&](const TokenLogprobs& one) {
    AppendScored(one.token, out);
    out += R"(,"top_logprobs":)";
    AppendList(one.top, out, [&](const ScoredToken& token) {
      AppendScored(token, out);
      out += '}';
    });
    out += '}';
  });
  out += R"(,"refusal":null})";
}

void AppendCompletionLogprobs(std::span<const TokenLogprobs> logprobs, size_t text_offset,
                              std::string& out) {
  out += R"({"text_offset":)";
  AppendList(logprobs, out, [&](const TokenLogprobs& one) {
    AppendInteger(text_offset, out);
    text_offset += CodePoints(one.token.bytes);
  });
  out += R"(,"token_logprobs":)";
  AppendList(logprobs, out,
             [&](const TokenLogprobs& one) { AppendJsonNumber(one.token.logprob, out); });
  out += R"(,"tokens":)";
  AppendList(logprobs, out,
             [&](const TokenLogprobs& one) { AppendJsonString(one.token.bytes, out); });
  out += R"(,"top_logprobs":)";
  AppendList(logprobs, out, [&](const TokenLogprobs& one) {
    // An object: a token string that two ids share keeps the likelier one, which comes first.
    out += '{';
    for (size_t i = 0; i < one.top.size(); ++i) {
      bool seen = false;
      for (size_t j = 0; j < i; ++j) seen = seen || one.top[j].bytes == one.top[i].bytes;
      if (seen) continue;
      if (i > 0) out += ',';
      AppendJsonString(one.top[i].bytes, out);
      out += ':';
      AppendJsonNumber(one.top[i].logprob, out);
    }
    out += '}';
  });
  out += '}';
}

void AppendHead(const ReplyHead& head, std::string_view object, std::string& out) {
  out += R"("id":)";
  AppendJsonString(head.id, out);
  out += R"(,"object":)";
  AppendJsonString(object, out);
  out += R"(,"created":)";
  AppendInteger(static_cast<uint64_t>(head.created_s), out);
  out += R"(,"model":)";
  AppendJsonString(head.model, out);
  out += R"(,"system_fingerprint":)";
  AppendJsonString(head.system_fingerprint, out);
}

}  // namespace behemoth::gateway
