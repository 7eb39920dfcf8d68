#include "gateway/session/token_session.h"

#include <absl/strings/str_cat.h>

#include <utility>

#include "gateway/api/api_error.h"
#include "gateway/api/door_replies.h"
#include "gateway/api/replies.h"
#include "gateway/api/token_request.h"
#include "gateway/session/error_response.h"
#include "gateway/session/generation_plan.h"
#include "gateway/text/detokenizer.h"

namespace behemoth::gateway {
namespace {

constexpr absl::Duration kTimeout = absl::Seconds(30);  // 8 MiB of text encode in far less

}  // namespace

TokenSession::TokenSession(const Services* services, Loop* loop, Kind kind, bool strict,
                           Ticket ticket)
    : services_(services),
      loop_(loop),
      kind_(kind),
      parse_(services->parse),
      ticket_(std::move(ticket)),
      arrival_(loop->Now()) {
  parse_.strict = strict;
}

void TokenSession::Start(std::string body, std::shared_ptr<Responder> responder) {
  responder_ = std::move(responder);
  text_ = services_->text->Get();
  absl::Status status;
  if (!text_) {
    status = WithRetryAfter(absl::UnavailableError("The tokenizer is not ready."), 2);
  } else {
    const bool from_ids = kind_ == Kind::kDetokenize || kind_ == Kind::kTabbyDecode;
    status = kind_ == Kind::kRender ? Render(body) : from_ids ? Detokenize(body) : Tokenize(body);
  }
  if (!status.ok()) Reply(ErrorResponse(status));
}

absl::Status TokenSession::UseModel(const std::string& name) {
  auto model = FindModel(services_->workers->View(), name);
  if (!model.ok()) return model.status();
  model_ = *std::move(model);
  return absl::OkStatus();
}

absl::Status TokenSession::Tokenize(const std::string& body) {
  auto request = ParseTokenizeRequest(body, parse_);
  if (!request.ok()) return request.status();
  if (const auto status = UseModel(request->model); !status.ok()) return status;
  warnings_ = std::move(request->warnings);
  wants_strings_ = request->return_token_strs;
  Prepared done = [weak = weak_from_this()](absl::StatusOr<PreparedPrompts> prompts) {
    if (const auto self = weak.lock()) self->OnPrepared(std::move(prompts));
  };
  if (auto* chat = std::get_if<ChatPrompt>(&request->input)) {
    chat->add_special_tokens = request->add_special_tokens;
    PrepareChat(*services_, *text_, std::move(*chat), arrival_ + kTimeout, *loop_, std::move(done));
  } else {
    std::vector<RawPrompt> prompts = {std::get<std::string>(std::move(request->input))};
    PrepareRaw(*services_, *text_, std::move(prompts), request->add_special_tokens,
               arrival_ + kTimeout, *loop_, std::move(done));
  }
  return absl::OkStatus();
}

absl::Status TokenSession::Render(const std::string& body) {
  auto request = ParseChatRequest(body, parse_);
  if (!request.ok()) return request.status();
  if (const auto status = UseModel(request->options.model); !status.ok()) return status;
  if (const auto status = services_->presets->Apply(*request); !status.ok()) return status;
  warnings_ = std::move(request->options.warnings);
  PrepareChat(*services_, *text_, std::move(request->prompt), arrival_ + kTimeout, *loop_,
              [weak = weak_from_this()](absl::StatusOr<PreparedPrompts> prompts) {
                if (const auto self = weak.lock()) self->OnPrepared(std::move(prompts));
              });
  return absl::OkStatus();
}

absl::Status TokenSession::Detokenize(const std::string& body) {
  auto request = ParseDetokenizeRequest(body, parse_);
  if (!request.ok()) return request.status();
  if (const auto status = UseModel(request->model); !status.ok()) return status;
  const TokenTable& table = *text_->vocabulary->table;
  Detokenizer detokenizer(text_->vocabulary->table, {.skip_special_tokens = false});
  std::string text;
  for (const uint32_t id : request->tokens) {
    if (!table.contains(id)) {
      return InvalidField(
          "tokens", absl::StrCat("The token id ", id, " is not in the vocabulary of ", table.size(),
                                 " ids."));
    }
    detokenizer.Push(id, text);
  }
  detokenizer.Flush(text);
  Reply({.body = kind_ == Kind::kTabbyDecode ? TabbyTextJson(text, request->warnings)
                                             : DetokenizeReplyJson(text, request->warnings)});
  return absl::OkStatus();
}

void TokenSession::OnPrepared(absl::StatusOr<PreparedPrompts> prompts) {
  if (!prompts.ok()) return Reply(ErrorResponse(prompts.status()));
  const PreparedPrompt& prompt = prompts->front();
  const TokenTable& table = *text_->vocabulary->table;
  if (kind_ == Kind::kRender) {
    std::vector<RenderedToken> tokens;
    for (const uint32_t id : prompt.ids) {
      tokens.push_back({.id = id, .bytes = table.bytes(id), .control = table.is_control(id)});
    }
    return Reply({.body = RenderReplyJson(prompt.text, tokens, warnings_)});
  }
  if (kind_ == Kind::kTabbyEncode) return Reply({.body = TabbyTokensJson(prompt.ids, warnings_)});
  if (kind_ == Kind::kKoboldCount) return Reply({.body = KoboldTokensJson(prompt.ids, warnings_)});
  TokenizeReply reply{
      .ids = prompt.ids, .max_model_len = model_.context_tokens, .warnings = warnings_};
  if (wants_strings_) {
    auto& strings = reply.token_bytes.emplace();
    for (const uint32_t id : prompt.ids) strings.push_back(table.bytes(id));
  }
  Reply({.body = TokenizeReplyJson(reply)});
}

void TokenSession::Reply(Response response) {
  const auto responder = std::exchange(responder_, nullptr);
  if (!responder) return;
  constexpr std::string_view kNames[] = {"tokenize",     "detokenize",   "render",
                                         "token_encode", "token_decode", "token_count"};
  services_->probe->OnRequest(kNames[static_cast<int>(kind_)], response.status,
                              absl::ToDoubleSeconds(loop_->Now() - arrival_));
  ticket_ = {};
  responder->Send(std::move(response));
}

}  // namespace behemoth::gateway
