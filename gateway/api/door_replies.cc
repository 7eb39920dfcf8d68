#include "gateway/api/door_replies.h"

#include "gateway/api/json_writer.h"
#include "gateway/api/reply_parts.h"

namespace behemoth::gateway {
namespace {

void AppendWarningsAndClose(std::span<const Warning> warnings, std::string& out) {
  if (!warnings.empty()) {
    out += R"(,"warnings":)";
    AppendWarnings(warnings, out);
  }
  out += '}';
}

void AppendLlamaLogprobs(std::span<const TokenLogprobs> logprobs, std::string& out) {
  const auto append = [&](const ScoredToken& token) {
    AppendScored(token, out);
    out += R"(,"id":)";
    AppendInteger(token.id, out);
  };
  out += R"(,"completion_probabilities":[)";
  for (const TokenLogprobs& one : logprobs) {
    if (&one != logprobs.data()) out += ',';
    append(one.token);
    out += R"(,"top_logprobs":[)";
    for (const ScoredToken& token : one.top) {
      if (&token != one.top.data()) out += ',';
      append(token);
      out += '}';
    }
    out += "]}";
  }
  out += ']';
}

void AppendLlamaFields(const LlamaChunk& chunk, std::string& out) {
  out += R"({"index":0,"content":)";
  AppendJsonString(chunk.content, out);
  out += R"(,"tokens":)";
  AppendIds(chunk.token_ids, out);
  if (!chunk.logprobs.empty()) AppendLlamaLogprobs(chunk.logprobs, out);
}

std::string_view LlamaStopType(FinishReason finish, const StopReason& stop) {
  if (finish == FinishReason::kLength) return "limit";
  if (finish == FinishReason::kCancelled) return "none";
  return stop.text || stop.id ? "word" : "eos";
}

}  // namespace

void AppendLlamaChunk(const LlamaChunk& chunk, std::string& out) {
  AppendLlamaFields(chunk, out);
  out += R"(,"stop":false})";
}

void AppendLlamaEnd(const LlamaEnd& end, std::string& out) {
  AppendLlamaFields(end.chunk, out);
  out += R"(,"stop":true,"model":)";
  AppendJsonString(end.model, out);
  out += R"(,"stop_type":")";
  out += LlamaStopType(end.finish, end.stop);
  out += R"(","stopping_word":)";
  AppendJsonString(end.stop.text.value_or(""), out);
  out += R"(,"truncated":false,"tokens_predicted":)";
  AppendInteger(end.usage.completion_tokens, out);
  out += R"(,"tokens_evaluated":)";
  AppendInteger(end.usage.prompt_tokens, out);
  out += R"(,"tokens_cached":)";
  AppendInteger(end.usage.cached_tokens, out);
  if (end.timings) {
    out += R"(,"timings":)";
    AppendTimings(*end.timings, out);
  }
  AppendWarningsAndClose(end.warnings, out);
}

std::string TabbyTokensJson(std::span<const uint32_t> ids, std::span<const Warning> warnings) {
  std::string out = R"({"tokens":)";
  AppendIds(ids, out);
  out += R"(,"length":)";
  AppendInteger(ids.size(), out);
  AppendWarningsAndClose(warnings, out);
  return out;
}

std::string TabbyTextJson(std::string_view text, std::span<const Warning> warnings) {
  std::string out = R"({"text":)";
  AppendJsonString(text, out);
  AppendWarningsAndClose(warnings, out);
  return out;
}

std::string KoboldTokensJson(std::span<const uint32_t> ids, std::span<const Warning> warnings) {
  std::string out = R"({"value":)";
  AppendInteger(ids.size(), out);
  out += R"(,"ids":)";
  AppendIds(ids, out);
  AppendWarningsAndClose(warnings, out);
  return out;
}

std::string TabbyModelJson(const ModelEntry& model) {
  std::string out = R"({"id":)";
  AppendJsonString(model.id, out);
  out += R"(,"object":"model","created":)";
  AppendInteger(static_cast<uint64_t>(model.created_s), out);
  out += R"(,"owned_by":"behemoth","parameters":{"max_seq_len":)";
  AppendInteger(model.max_model_len, out);
  out += "}}";
  return out;
}

std::string OobaModelJson(const ModelEntry& model) {
  std::string out = R"({"model_name":)";
  AppendJsonString(model.id, out);
  out += R"(,"lora_names":[]})";
  return out;
}

std::string LlamaPropsJson(const LlamaProps& props) {
  std::string out = R"({"default_generation_settings":{"n_ctx":)";
  AppendInteger(props.context_tokens, out);
  out += R"(},"model_alias":)";
  AppendJsonString(props.model, out);
  const auto member = [&](std::string_view name, std::string_view text) {
    out.append(",\"").append(name).append("\":");
    AppendJsonString(text, out);
  };
  member("chat_template", props.chat_template);
  member("bos_token", props.bos_token);
  member("eos_token", props.eos_token);
  member("build_info", props.build);
  out += '}';
  return out;
}

}  // namespace behemoth::gateway
