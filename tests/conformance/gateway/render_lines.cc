// Chat templates outside the gateway: one JSON object a line in, one out. A line with "template"
// compiles it; a line with "messages" renders them with the template compiled last.
//
// {"template", "tokens": {"bos_token", ...}, "control_tokens": [[string, id]]} -> {} | {"error"}
// {"messages", "tools", "continue_final_message", "add_generation_prompt", "arguments"}
//   -> {"text", "segments": [string | id]} | {"error", "code"}
#include <absl/status/statusor.h>
#include <absl/synchronization/notification.h>

#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "gateway/chat/chat_template.h"

namespace behemoth::gateway {
namespace {

using json = nlohmann::ordered_json;  // a tool's members keep their order

json Error(const absl::Status& status) {
  return {{"error", std::string(status.message())},
          {"code", absl::StatusCodeToString(status.code())}};
}

TemplateSource Source(const json& line) {
  const json& tokens = line.at("tokens");
  return {.jinja = line.at("template"),
          .bos_token = tokens.value("bos_token", ""),
          .eos_token = tokens.value("eos_token", ""),
          .unk_token = tokens.value("unk_token", ""),
          .pad_token = tokens.value("pad_token", ""),
          .control_tokens = line.at("control_tokens")};
}

ChatPrompt Prompt(const json& line) {
  ChatPrompt prompt{.continue_final_message = line.value("continue_final_message", false),
                    .add_generation_prompt = line.value("add_generation_prompt", false)};
  for (const json& message : line.at("messages")) {
    ChatMessage& read = prompt.messages.emplace_back();
    read = {.role = message.at("role"), .content = message.value("content", "")};
    read.tool_call_id = message.value("tool_call_id", "");
    for (const json& call : message.value("tool_calls", json::array())) {
      const json& function = call.at("function");
      read.tool_calls.push_back({.id = call.at("id"),
                                 .name = function.at("name"),
                                 .arguments = function.at("arguments")});
    }
    if (message.contains("name")) read.name = message.at("name").get<std::string>();
  }
  if (line.contains("tools")) prompt.tools_json = line.at("tools").dump();
  if (line.contains("arguments")) prompt.template_kwargs_json = line.at("arguments").dump();
  return prompt;
}

json Render(ChatTemplate& chat_template, ChatPrompt prompt) {
  absl::StatusOr<PromptText> result;
  absl::Notification done;
  chat_template.Render(std::move(prompt), [&](absl::StatusOr<PromptText> text) {
    result = std::move(text);
    done.Notify();
  });
  done.WaitForNotification();
  if (!result.ok()) return Error(result.status());
  json segments = json::array();
  for (const auto& segment : result->segments) {
    std::visit([&](const auto& value) { segments.push_back(value); }, segment);
  }
  return {{"text", result->text}, {"segments", std::move(segments)}};
}

int Run() {
  auto jinja = Jinja::Start({});
  if (!jinja.ok()) {
    std::cerr << jinja.status() << "\n";
    return 1;
  }
  std::shared_ptr<ChatTemplate> current;
  for (std::string text; std::getline(std::cin, text);) {
    const json line = json::parse(text);
    json reply = json::object();
    if (line.contains("template")) {
      auto compiled = (*jinja)->Compile(Source(line));
      if (compiled.ok()) {
        current = *std::move(compiled);
      } else {
        reply = Error(compiled.status());
      }
    } else {
      reply = Render(*current, Prompt(line));
    }
    std::cout << reply.dump() << std::endl;
  }
  return 0;
}

}  // namespace
}  // namespace behemoth::gateway

int main() { return behemoth::gateway::Run(); }
