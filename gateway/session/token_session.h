// /tokenize, /detokenize, their like and /v1/chat/completions/render: text side only, nothing is
// generated. Loop thread only; one per request.
#pragma once

#include <memory>
#include <string>

#include "gateway/http/application.h"
#include "gateway/session/prompt.h"
#include "gateway/session/services.h"

namespace behemoth::gateway {

class TokenSession final : public Exchange, public std::enable_shared_from_this<TokenSession> {
 public:
  // The last ones are other servers' doors to the first two (api/door_replies.h).
  enum class Kind { kTokenize, kDetokenize, kRender, kTabbyEncode, kTabbyDecode, kKoboldCount };
  TokenSession(const Services* services, Loop* loop, Kind kind, bool strict, Ticket ticket);

  void Start(std::string body, std::shared_ptr<Responder> responder) override;
  void OnGone() override { responder_.reset(); }

 private:
  absl::Status Tokenize(const std::string& body);
  absl::Status Detokenize(const std::string& body);
  absl::Status Render(const std::string& body);
  absl::Status UseModel(const std::string& name);
  void OnPrepared(absl::StatusOr<PreparedPrompts> prompts);
  void Reply(Response response);

  const Services* const services_;
  Loop* const loop_;
  const Kind kind_;
  ParseOptions parse_;
  Ticket ticket_;
  const absl::Time arrival_;
  std::shared_ptr<Responder> responder_;
  std::shared_ptr<const ModelText> text_;
  ServedModel model_;
  std::vector<Warning> warnings_;
  bool wants_strings_ = false;
};

}  // namespace behemoth::gateway
