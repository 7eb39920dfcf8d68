// Any bytes as the body of each route: a typed request whose values keep their headers' promises,
// or a 400 in the error shape, small and valid UTF-8 whatever came in. The first byte picks the
// route and the mode.
#include <nlohmann/json.hpp>

#include "gateway/api/api_error.h"
#include "gateway/api/chat_request.h"
#include "gateway/api/completion_request.h"
#include "gateway/api/replies.h"
#include "gateway/api/token_request.h"

namespace {

using namespace behemoth::gateway;

void Require(bool held) {
  if (!held) __builtin_trap();
}

void CheckError(const absl::Status& status) {
  const ApiError error = ToApiError(status);
  Require(error.http == 400);
  const std::string body = ErrorJson(error);
  Require(body.size() < 4096);
  const auto read = nlohmann::json::parse(body, nullptr, /*allow_exceptions=*/false);
  Require(!read.is_discarded() && read["error"].size() == 4);
}

void CheckWarnings(const std::vector<Warning>& warnings, bool strict) {
  Require(warnings.size() <= 32);
  Require(!strict || warnings.empty());
  Require(nlohmann::json::accept(DetokenizeReplyJson("", warnings)));
}

void CheckOptions(const GenerationOptions& options, bool strict) {
  Require(options.n >= 1 && options.n <= 16);
  Require(!options.max_tokens || *options.max_tokens >= 1);
  Require(!options.max_tokens || options.min_tokens <= *options.max_tokens);
  Require(options.stop.strings.size() <= 64 && options.stop.token_ids.size() <= 256);
  for (const std::string& stop : options.stop.strings) {
    Require(!stop.empty() && stop.size() <= 256);
  }
  const SamplingOptions& sampling = options.sampling;
  Require(!sampling.temperature || *sampling.temperature >= 0);
  Require(!sampling.top_p || (static_cast<float>(*sampling.top_p) > 0 && *sampling.top_p <= 1));
  Require(!sampling.min_p || (*sampling.min_p >= 0 && *sampling.min_p <= 1));
  Require(!sampling.top_k || *sampling.top_k >= -1);
  Require(!sampling.repetition_penalty || static_cast<float>(*sampling.repetition_penalty) > 0);
  Require(options.output.top_logprobs.value_or(0) <= 20);
  for (size_t i = 1; i < sampling.logit_bias.size(); ++i) {
    Require(sampling.logit_bias[i - 1].first < sampling.logit_bias[i].first);
  }
  CheckWarnings(options.warnings, strict);
}

void CheckPrompt(const ChatPrompt& prompt) {
  Require(!prompt.messages.empty());
  Require(!(prompt.continue_final_message && prompt.add_generation_prompt));
  Require(!prompt.continue_final_message || prompt.messages.back().role == "assistant");
  Require(prompt.template_kwargs_json.empty() ||
          nlohmann::json::accept(prompt.template_kwargs_json));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view body(reinterpret_cast<const char*>(data) + 1, size - 1);
  const ParseOptions options = {.strict = (data[0] & 4) != 0,
                                .trust_request_template = (data[0] & 8) != 0};
  switch (data[0] & 3) {
    case 0: {
      const auto chat = ParseChatRequest(body, options);
      if (!chat.ok()) return CheckError(chat.status()), 0;
      CheckPrompt(chat->prompt);
      CheckOptions(chat->options, options.strict);
      return 0;
    }
    case 1: {
      const auto completion = ParseCompletionRequest(body, options);
      if (!completion.ok()) return CheckError(completion.status()), 0;
      Require(!completion->prompts.empty() && completion->prompts.size() <= 64);
      CheckOptions(completion->options, options.strict);
      return 0;
    }
    case 2: {
      const auto tokenize = ParseTokenizeRequest(body, options);
      if (!tokenize.ok()) return CheckError(tokenize.status()), 0;
      if (const auto* chat = std::get_if<ChatPrompt>(&tokenize->input)) CheckPrompt(*chat);
      CheckWarnings(tokenize->warnings, options.strict);
      return 0;
    }
    default: {
      const auto detokenize = ParseDetokenizeRequest(body, options);
      if (!detokenize.ok()) return CheckError(detokenize.status()), 0;
      CheckWarnings(detokenize->warnings, options.strict);
      return 0;
    }
  }
}
