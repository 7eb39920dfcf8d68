#include "gateway/api/token_request.h"

#include <utility>

#include "gateway/api/api_error.h"
#include "gateway/api/chat_fields.h"

namespace behemoth::gateway {

absl::StatusOr<TokenizeRequest> ParseTokenizeRequest(std::string_view body,
                                                     const ParseOptions& options) {
  auto fields = RequestFields::Read(body, kTokenizeRoute);
  if (!fields.ok()) return fields.status();
  TokenizeRequest request;
  request.model = fields->String("model").value_or("");
  request.return_token_strs = fields->Bool("return_token_strs").value_or(false);
  const Json* prompt = fields->Find("prompt");
  const bool chat = fields->Find("messages") != nullptr;
  if (chat == (prompt != nullptr)) {
    return InvalidField(chat ? "prompt" : "messages", "give exactly one of prompt and messages");
  }
  if (chat) {
    auto read = ReadChatPrompt(*fields, options, /*prefilled=*/false);
    if (!read.ok()) return read.status();
    request.input = *std::move(read);
  } else if (prompt->is_string()) {
    request.input = prompt->get<std::string>();
    for (const char* name : {"add_generation_prompt", "continue_final_message", "chat_template",
                             "chat_template_kwargs", "tools"}) {
      if (fields->Find(name) != nullptr) fields->Warn(name, "needs messages, ignored");
    }
  } else {
    return InvalidField(fields->NameOf("prompt"), "must be a string");
  }
  request.add_special_tokens = fields->Bool("add_special_tokens").value_or(!chat);
  request.warnings = fields->warnings;
  if (absl::Status bad = CheckStrict(options, request.warnings); !bad.ok()) return bad;
  return request;
}

absl::StatusOr<DetokenizeRequest> ParseDetokenizeRequest(std::string_view body,
                                                         const ParseOptions& options) {
  auto fields = RequestFields::Read(body, kDetokenizeRoute);
  if (!fields.ok()) return fields.status();
  if (fields->Find("tokens") == nullptr) return InvalidField("tokens", "is required");
  DetokenizeRequest request{.model = fields->String("model").value_or(""),
                            .tokens = fields->Ids("tokens"),
                            .warnings = fields->warnings};
  if (absl::Status bad = CheckStrict(options, request.warnings); !bad.ok()) return bad;
  return request;
}

}  // namespace behemoth::gateway
