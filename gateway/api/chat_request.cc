#include "gateway/api/chat_request.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "gateway/api/api_error.h"
#include "gateway/api/chat_fields.h"
#include "gateway/api/generation_fields.h"
#include "gateway/api/tool_fields.h"

namespace behemoth::gateway {
namespace {

using json = Json;

constexpr size_t kMaxMessages = 16384;

absl::StatusOr<std::string> ReadContent(const std::string& name, const json& content,
                                        RequestFields& fields) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) return InvalidField(name, "must be a string or a list of text parts");
  std::string joined;
  for (size_t i = 0; i < content.size(); ++i) {
    const json& part = content[i];
    const std::string at = absl::StrCat(name, "[", i, "]");
    if (i > 0) joined += '\n';
    if (part.is_string()) {
      joined += part.get_ref<const std::string&>();
      continue;
    }
    if (!part.is_object()) return InvalidField(at, "must be a text part");
    const auto type = part.find("type");
    if (type == part.end() || !type->is_string()) {
      return InvalidField(at + ".type", "must be a string");
    }
    if (*type != "text" && *type != "input_text") {
      return InvalidField(at,
                          "this model reads text only: image, audio and file parts are refused");
    }
    const auto text = part.find("text");
    if (text == part.end() || !text->is_string()) {
      return InvalidField(at + ".text", "must be a string");
    }
    WarnOfOthers(at, part, {"type", "text"}, fields);
    joined += text->get_ref<const std::string&>();
  }
  return joined;
}

// What belongs to tools in a message, and what does not belong there.
absl::Status ReadToolMembers(const std::string& at, const json& message, RequestFields& fields,
                             ChatMessage& read) {
  const auto find = [&message](const char* name) -> const json* {
    const auto value = message.find(name);
    const bool says = value != message.end() && !value->is_null() && !value->empty();
    return says ? &*value : nullptr;
  };
  if (find("function_call") != nullptr) {
    return InvalidField(at + ".function_call", "is not supported: use tool_calls");
  }
  if (find("audio") != nullptr) return InvalidField(at + ".audio", "is not supported yet");
  const auto calls = message.find("tool_calls");
  if (calls != message.end() && !calls->is_null() && *calls != json::array()) {
    if (read.role != "assistant") {
      return InvalidField(at + ".tool_calls", "are the assistant's alone");
    }
    auto read_calls = ReadToolCalls(at + ".tool_calls", *calls, fields);
    if (!read_calls.ok()) return read_calls.status();
    read.tool_calls = *std::move(read_calls);
  }
  if (read.role == "tool") {
    const json* id = find("tool_call_id");
    if (id == nullptr) return InvalidField(at + ".tool_call_id", "is required");
    auto read_id = ReadToolCallId(at + ".tool_call_id", *id, fields);
    if (!read_id.ok()) return read_id.status();
    read.tool_call_id = *std::move(read_id);
  } else if (find("tool_call_id") != nullptr) {
    fields.Warn(at + ".tool_call_id", "belongs to messages of role tool, ignored");
  }
  WarnOfOthers(at, message, {"role", "content", "name", "tool_calls", "tool_call_id"}, fields);
  return absl::OkStatus();
}

absl::StatusOr<ChatMessage> ReadMessage(const std::string& at, const json& message,
                                        RequestFields& fields) {
  if (!message.is_object()) return InvalidField(at, "must be an object");
  ChatMessage read;
  const auto role = message.find("role");
  if (role == message.end() || !role->is_string()) {
    return InvalidField(at + ".role", "must be a string");
  }
  read.role = role->get<std::string>();
  constexpr std::string_view kRoles[] = {"system", "developer", "user", "assistant", "tool"};
  if (std::find(std::begin(kRoles), std::end(kRoles), read.role) == std::end(kRoles)) {
    return InvalidField(at + ".role", read.role == "function"
                                          ? "is not supported: use tool, with a tool_call_id"
                                          : "must be system, developer, user, assistant or tool");
  }
  if (absl::Status bad = ReadToolMembers(at, message, fields, read); !bad.ok()) return bad;
  const auto content = message.find("content");
  const bool said = content != message.end() && !content->is_null();
  if (!said && read.tool_calls.empty()) return InvalidField(at + ".content", "is required");
  if (said) {
    auto text = ReadContent(at + ".content", *content, fields);
    if (!text.ok()) return text.status();
    read.content = *std::move(text);
  }
  const auto name = message.find("name");
  if (name != message.end() && !name->is_null()) {
    if (!name->is_string()) return InvalidField(at + ".name", "must be a string");
    read.name = name->get<std::string>();
  }
  return read;
}

absl::Status ReadTemplate(const RequestFields& fields, const ParseOptions& options,
                          ChatPrompt& prompt) {
  prompt.chat_template = fields.String("chat_template");
  if (prompt.chat_template && !options.trust_request_template) {
    return InvalidField("chat_template", "templates in requests are refused by this server");
  }
  const json* kwargs = fields.Find("chat_template_kwargs");
  if (kwargs == nullptr || kwargs->empty()) return absl::OkStatus();
  for (const auto& [key, value] : kwargs->items()) {
    const auto& allowed = options.allowed_template_kwargs;
    if (std::find(allowed.begin(), allowed.end(), key) == allowed.end()) {
      return InvalidField(fields.NameOf("chat_template_kwargs") + "." + key.substr(0, 64),
                          "is not on this server's list of template arguments");
    }
  }
  prompt.template_kwargs_json = kwargs->dump();
  return absl::OkStatus();
}

// Automatic: a last message of the assistant's is continued. An explicit wish counts first.
absl::Status SettleFlags(const RequestFields& fields, bool prefilled, ChatPrompt& prompt) {
  const auto go_on = fields.Bool("continue_final_message");
  const auto generate = fields.Bool("add_generation_prompt");
  const bool ours_last = prompt.messages.back().role == "assistant";
  if (go_on.value_or(false) && generate.value_or(false)) {
    return InvalidField("continue_final_message",
                        "cannot be true together with add_generation_prompt: true");
  }
  if (prefilled) {
    if (ours_last) {
      return InvalidField("thinking",
                          "appends the assistant's prefill, but the last message already is the "
                          "assistant's");
    }
    if (go_on == false || generate == true) {
      return InvalidField("thinking",
                          "needs the prefill to be continued: leave continue_final_message and "
                          "add_generation_prompt out");
    }
    prompt.continue_final_message = false;  // the presets set it with the prefill
    prompt.add_generation_prompt = false;
    return absl::OkStatus();
  }
  if (go_on.value_or(false) && !ours_last) {
    return InvalidField("continue_final_message",
                        "the last message must be the assistant's to be continued");
  }
  prompt.continue_final_message = go_on.value_or(ours_last && !generate.value_or(false));
  prompt.add_generation_prompt = !prompt.continue_final_message && generate.value_or(true);
  return absl::OkStatus();
}

absl::StatusOr<std::optional<ThinkingOptions>> ReadThinking(const RequestFields& fields) {
  const json* thinking = fields.Find("thinking");
  if (thinking == nullptr) return std::nullopt;
  constexpr size_t kMaxPrefillBytes = 65536;
  ThinkingOptions read;
  for (const auto& [key, value] : thinking->items()) {
    const std::string at = "thinking." + key.substr(0, 64);
    if (value.is_null()) continue;
    if (key == "budget_tokens") {
      if (!value.is_number_unsigned() || value.get<uint64_t>() > INT32_MAX ||
          value.get<uint64_t>() < 1) {
        return InvalidField(at, "must be an integer of at least 1");
      }
      read.budget_tokens = value.get<uint32_t>();
    } else if (key == "preset" || key == "prefill") {
      if (!value.is_string()) return InvalidField(at, "must be a string");
      if (value.get_ref<const std::string&>().size() > kMaxPrefillBytes) {
        return InvalidField(at, absl::StrCat("must have at most ", kMaxPrefillBytes, " bytes"));
      }
      (key == "preset" ? read.preset : read.prefill) = value.get<std::string>();
    } else {
      return InvalidField(at, "unknown: thinking takes preset, prefill and budget_tokens");
    }
  }
  if (read.preset && read.prefill) {
    return InvalidField("thinking", "takes a preset or a prefill, not both");
  }
  return read;
}

}  // namespace

absl::StatusOr<ChatPrompt> ReadChatPrompt(RequestFields& fields, const ParseOptions& options,
                                          bool prefilled) {
  const json* messages = fields.Find("messages");
  if (messages == nullptr) return InvalidField("messages", "is required");
  if (messages->empty()) return InvalidField("messages", "must have at least one message");
  if (messages->size() > kMaxMessages) {
    return InvalidField("messages", absl::StrCat("at most ", kMaxMessages, " messages"));
  }
  ChatPrompt prompt;
  prompt.messages.reserve(messages->size());
  for (size_t i = 0; i < messages->size(); ++i) {
    auto message = ReadMessage(absl::StrCat("messages[", i, "]"), (*messages)[i], fields);
    if (!message.ok()) return message.status();
    prompt.messages.push_back(*std::move(message));
  }
  if (absl::Status bad = CheckToolMessages(prompt.messages); !bad.ok()) return bad;
  auto tools = ReadTools(fields);
  if (!tools.ok()) return tools.status();
  prompt.tools_json = *std::move(tools);
  if (absl::Status bad = ReadTemplate(fields, options, prompt); !bad.ok()) return bad;
  if (absl::Status bad = SettleFlags(fields, prefilled, prompt); !bad.ok()) return bad;
  prompt.add_special_tokens = fields.Bool("add_special_tokens").value_or(false);
  return prompt;
}

absl::StatusOr<ChatRequest> ParseChatRequest(std::string_view body, const ParseOptions& options) {
  auto fields = RequestFields::Read(body, kChatRoute);
  if (!fields.ok()) return fields.status();
  ChatRequest request;
  auto thinking = ReadThinking(*fields);
  if (!thinking.ok()) return thinking.status();
  request.thinking = *std::move(thinking);
  const bool prefilled =
      request.thinking && (request.thinking->preset || request.thinking->prefill);
  auto prompt = ReadChatPrompt(*fields, options, prefilled);
  if (!prompt.ok()) return prompt.status();
  request.prompt = *std::move(prompt);
  auto format = ReadReasoningFormat(
      *fields, request.thinking ? ReasoningFormat::kSeparate : ReasoningFormat::kNone);
  if (!format.ok()) return format.status();
  request.reasoning_format = *format;
  auto generation = ReadGenerationOptions(*fields);
  if (!generation.ok()) return generation.status();
  request.options = *std::move(generation);
  if (absl::Status bad = ReadToolChoice(*fields, request.options); !bad.ok()) return bad;
  request.options.warnings = fields->warnings;
  request.prompt.begins_with_calls = request.options.tool_calls == ToolCalls::kForced;
  const auto top = fields->Count("top_logprobs");
  if (fields->Bool("logprobs").value_or(false)) {
    request.options.output.top_logprobs = top.value_or(0);
  } else if (top.value_or(0) > 0) {
    return InvalidField("top_logprobs", "needs logprobs: true");
  }
  if (absl::Status bad = CheckStrict(options, request.options.warnings); !bad.ok()) return bad;
  return request;
}

}  // namespace behemoth::gateway
