#include "gateway/api/completion_request.h"

#include <absl/strings/str_cat.h>

#include <utility>

#include "gateway/api/api_error.h"
#include "gateway/api/generation_fields.h"

namespace behemoth::gateway {
namespace {

using json = Json;

constexpr size_t kMaxPrompts = 64;
constexpr size_t kMaxPromptIds = size_t{1} << 20;

absl::StatusOr<RawPrompt> ReadPrompt(const std::string& at, const json& prompt) {
  if (prompt.is_string()) {
    if (prompt == "") return InvalidField(at, "must not be empty");
    return RawPrompt(prompt.get<std::string>());
  }
  auto ids = ReadIds(at, prompt, kMaxPromptIds);
  if (!ids.ok()) return ids.status();
  if (ids->empty()) return InvalidField(at, "must not be empty");
  return RawPrompt(*std::move(ids));
}

absl::StatusOr<std::vector<RawPrompt>> ReadPrompts(const RequestFields& fields) {
  const json* prompt = fields.Find("prompt");
  if (prompt == nullptr) return InvalidField("prompt", "is required");
  const bool many = prompt->is_array() && !prompt->empty() && !(*prompt)[0].is_number();
  if (!prompt->is_string() && !prompt->is_array()) {
    return InvalidField("prompt", "must be a string, a list of strings, of ids or of lists of ids");
  }
  std::vector<RawPrompt> prompts;
  const size_t count = many ? prompt->size() : 1;
  if (count > kMaxPrompts) {
    return InvalidField("prompt", absl::StrCat("at most ", kMaxPrompts, " prompts"));
  }
  for (size_t i = 0; i < count; ++i) {
    auto one = ReadPrompt(many ? absl::StrCat("prompt[", i, "]") : "prompt",
                          many ? (*prompt)[i] : *prompt);
    if (!one.ok()) return one.status();
    prompts.push_back(*std::move(one));
  }
  return prompts;
}

}  // namespace

absl::StatusOr<CompletionRequest> ParseCompletionRequest(std::string_view body,
                                                         const ParseOptions& options) {
  auto fields = RequestFields::Read(body, kCompletionRoute);
  if (!fields.ok()) return fields.status();
  CompletionRequest request;
  auto prompts = ReadPrompts(*fields);
  if (!prompts.ok()) return prompts.status();
  request.prompts = *std::move(prompts);
  auto format = ReadReasoningFormat(*fields, ReasoningFormat::kNone);
  if (!format.ok()) return format.status();
  request.reasoning_format = *format;
  const auto top_logprobs = fields->Count("logprobs");
  if (top_logprobs && fields->Bool("echo").value_or(false)) {
    fields->Warn("logprobs", "cover the generated tokens only; prompt_logprobs are the prompt's");
  }
  auto generation = ReadGenerationOptions(*fields);
  if (!generation.ok()) return generation.status();
  request.options = *std::move(generation);
  if (fields->Find("max_tokens") == nullptr) {
    const auto otherwise = options.completion_max_tokens;
    request.options.max_tokens = otherwise;
    if (otherwise && request.options.min_tokens > *otherwise) {
      return InvalidField("min_tokens", absl::StrCat("must not be over max_tokens, which is ",
                                                     *otherwise, " if not given"));
    }
  }
  request.options.output.top_logprobs = top_logprobs;
  request.add_special_tokens = fields->Bool("add_special_tokens").value_or(true);
  if (absl::Status bad = CheckStrict(options, request.options.warnings); !bad.ok()) return bad;
  return request;
}

}  // namespace behemoth::gateway
