#include "gateway/api/replies.h"

#include "gateway/api/json_writer.h"
#include "gateway/api/reply_parts.h"

namespace behemoth::gateway {
namespace {

void AppendTail(const ReplyTail& tail, std::string& out) {
  out += R"(],"usage":)";
  AppendUsage(tail.usage, out);
  if (tail.timings) {
    out += R"(,"timings":)";
    AppendTimings(*tail.timings, out);
  }
  if (tail.prompt_token_ids) {
    out += R"(,"prompt_token_ids":)";
    AppendIds(*tail.prompt_token_ids, out);
  }
  if (tail.prompt_logprobs) {
    // vLLM's shape: for each token {id: {logprob, rank, decoded_token}}, null for the first.
    out += R"(,"prompt_logprobs":[)";
    bool first_token = true;
    for (const auto& one : *tail.prompt_logprobs) {
      if (!first_token) out += ',';
      first_token = false;
      if (!one) {
        out += "null";
        continue;
      }
      const auto append = [&](const ScoredToken& token, uint32_t rank) {
        out += '"';
        AppendInteger(token.id, out);
        out += R"(":{"logprob":)";
        AppendJsonNumber(token.logprob, out);
        out += R"(,"rank":)";
        AppendInteger(rank, out);
        out += R"(,"decoded_token":)";
        AppendJsonString(token.bytes, out);
        out += '}';
      };
      out += '{';
      append(one->token, one->rank);
      for (size_t i = 0; i < one->top.size(); ++i) {
        if (one->top[i].id == one->token.id) continue;
        out += ',';
        append(one->top[i], static_cast<uint32_t>(i + 1));
      }
      out += '}';
    }
    out += ']';
  }
  if (!tail.warnings.empty()) {
    out += R"(,"warnings":)";
    AppendWarnings(tail.warnings, out);
  }
  out += '}';
}

void AppendFinish(FinishReason finish, const StopReason& stop_reason,
                  const std::optional<std::vector<uint32_t>>& token_ids, std::string& out) {
  out += R"(,"finish_reason":")";
  out += FinishName(finish);
  out += R"(","stop_reason":)";
  AppendStopReason(stop_reason, out);
  if (!token_ids) return;
  out += R"(,"token_ids":)";
  AppendIds(*token_ids, out);
}

void AppendModel(const ModelEntry& model, std::string& out) {
  out += R"({"id":)";
  AppendJsonString(model.id, out);
  out += R"(,"object":"model","created":)";
  AppendInteger(static_cast<uint64_t>(model.created_s), out);
  out += R"(,"owned_by":"behemoth","root":)";
  AppendJsonString(model.root, out);
  out += R"(,"parent":null,"max_model_len":)";
  AppendInteger(model.max_model_len, out);
  out += '}';
}

void AppendWarningsIfAny(std::span<const Warning> warnings, std::string& out) {
  if (warnings.empty()) return;
  out += R"(,"warnings":)";
  AppendWarnings(warnings, out);
}

}  // namespace

std::string ChatReplyJson(const ReplyHead& head, std::span<const ChatChoice> choices,
                          const ReplyTail& tail) {
  std::string out = "{";
  AppendHead(head, "chat.completion", out);
  out += R"(,"choices":[)";
  for (const ChatChoice& choice : choices) {
    if (&choice != choices.data()) out += ',';
    out += R"({"index":)";
    AppendInteger(choice.index, out);
    out += R"(,"message":{"role":"assistant","content":)";
    if (choice.content.empty() && !choice.calls.empty()) {
      out += "null";
    } else {
      AppendJsonString(choice.content, out);
    }
    out += R"(,"refusal":null)";
    if (!choice.calls.empty()) {
      out += R"(,"tool_calls":)";
      AppendToolCalls(choice.calls, /*in_delta=*/false, out);
    }
    if (choice.reasoning) {
      out += R"(,"reasoning_content":)";
      AppendJsonString(*choice.reasoning, out);
    }
    out += R"(},"logprobs":)";
    if (choice.logprobs) {
      AppendChatLogprobs(*choice.logprobs, out);
    } else {
      out += "null";
    }
    AppendFinish(choice.finish, choice.stop_reason, choice.token_ids, out);
    out += '}';
  }
  AppendTail(tail, out);
  return out;
}

std::string CompletionReplyJson(const ReplyHead& head, std::span<const CompletionChoice> choices,
                                const ReplyTail& tail) {
  std::string out = "{";
  AppendHead(head, "text_completion", out);
  out += R"(,"choices":[)";
  for (const CompletionChoice& choice : choices) {
    if (&choice != choices.data()) out += ',';
    out += R"({"index":)";
    AppendInteger(choice.index, out);
    out += R"(,"text":)";
    AppendJsonString(choice.text, out);
    if (choice.reasoning) {
      out += R"(,"reasoning":)";
      AppendJsonString(*choice.reasoning, out);
    }
    out += R"(,"logprobs":)";
    if (choice.logprobs) {
      AppendCompletionLogprobs(*choice.logprobs, choice.logprobs_text_offset, out);
    } else {
      out += "null";
    }
    AppendFinish(choice.finish, choice.stop_reason, choice.token_ids, out);
    if (choice.prompt_token_ids) {
      out += R"(,"prompt_token_ids":)";
      AppendIds(*choice.prompt_token_ids, out);
    }
    out += '}';
  }
  AppendTail(tail, out);
  return out;
}

std::string ModelListJson(std::span<const ModelEntry> models) {
  std::string out = R"({"object":"list","data":[)";
  for (const ModelEntry& model : models) {
    if (&model != models.data()) out += ',';
    AppendModel(model, out);
  }
  out += "]}";
  return out;
}

std::string ModelJson(const ModelEntry& model) {
  std::string out;
  AppendModel(model, out);
  return out;
}

std::string TokenizeReplyJson(const TokenizeReply& reply) {
  std::string out = R"({"count":)";
  AppendInteger(reply.ids.size(), out);
  out += R"(,"max_model_len":)";
  AppendInteger(reply.max_model_len, out);
  out += R"(,"tokens":)";
  AppendIds(reply.ids, out);
  out += R"(,"token_strs":)";
  if (reply.token_bytes) {
    out += '[';
    for (size_t i = 0; i < reply.token_bytes->size(); ++i) {
      if (i > 0) out += ',';
      AppendJsonString((*reply.token_bytes)[i], out);
    }
    out += ']';
  } else {
    out += "null";
  }
  AppendWarningsIfAny(reply.warnings, out);
  out += '}';
  return out;
}

std::string DetokenizeReplyJson(std::string_view text, std::span<const Warning> warnings) {
  std::string out = R"({"prompt":)";
  AppendJsonString(text, out);
  AppendWarningsIfAny(warnings, out);
  out += '}';
  return out;
}

std::string RenderReplyJson(std::string_view prompt, std::span<const RenderedToken> tokens,
                            std::span<const Warning> warnings) {
  std::string out = R"({"prompt":)";
  AppendJsonString(prompt, out);
  out += R"(,"count":)";
  AppendInteger(tokens.size(), out);
  out += R"(,"token_ids":[)";
  for (const RenderedToken& token : tokens) {
    if (&token != tokens.data()) out += ',';
    AppendInteger(token.id, out);
  }
  out += R"(],"tokens":[)";
  for (const RenderedToken& token : tokens) {
    if (&token != tokens.data()) out += ',';
    out += R"({"id":)";
    AppendInteger(token.id, out);
    out += R"(,"text":)";
    AppendJsonString(token.bytes, out);
    out += token.control ? R"(,"control":true})" : R"(,"control":false})";
  }
  out += ']';
  AppendWarningsIfAny(warnings, out);
  out += '}';
  return out;
}

}  // namespace behemoth::gateway
