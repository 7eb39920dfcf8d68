#include "gateway/session/front_door.h"

#include <absl/strings/ascii.h>
#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "gateway/api/api_error.h"
#include "gateway/api/door_replies.h"
#include "gateway/api/replies.h"
#include "gateway/page/page.h"
#include "gateway/session/error_response.h"
#include "gateway/session/generation_plan.h"
#include "gateway/session/generation_session.h"
#include "gateway/session/request_registry.h"
#include "gateway/session/token_session.h"
#include "proto/support/version.h"

namespace behemoth::gateway {

enum class FrontDoor::Action {
  kChat,
  kCompletions,
  kLlamaCompletion,
  kRender,
  kTokenize,
  kDetokenize,
  kTabbyEncode,
  kTabbyDecode,
  kKoboldCount,  // these read a JSON body
  kModels,
  kModel,
  kTabbyModel,
  kOobaModel,
  kProps,
  kPresets,
  kCancel,
  kEndThinking,
  kHealth,
  kLive,
  kVersion,
  kLoad,
  kOpenApi,
  kPage
};

// "*" stands for one or more characters, slashes included: a model's name has them.
struct FrontDoor::Route {
  std::string_view method, pattern, name;
  Action action;
  bool is_public = false;

  bool ReadsBody() const { return action <= Action::kKoboldCount; }
  TokenSession::Kind token_kind() const {
    using Kind = TokenSession::Kind;
    return action == Action::kTokenize      ? Kind::kTokenize
           : action == Action::kDetokenize  ? Kind::kDetokenize
           : action == Action::kTabbyEncode ? Kind::kTabbyEncode
           : action == Action::kTabbyDecode ? Kind::kTabbyDecode
           : action == Action::kKoboldCount ? Kind::kKoboldCount
                                            : Kind::kRender;
  }
  std::optional<std::string_view> Match(std::string_view path) const {
    const size_t star = pattern.find('*');
    if (star == std::string_view::npos) {
      return path == pattern ? std::optional<std::string_view>("") : std::nullopt;
    }
    const std::string_view before = pattern.substr(0, star), after = pattern.substr(star + 1);
    if (path.size() <= before.size() + after.size() || path.substr(0, before.size()) != before ||
        path.substr(path.size() - after.size()) != after) {
      return std::nullopt;
    }
    return path.substr(before.size(), path.size() - before.size() - after.size());
  }
};

const FrontDoor::Route FrontDoor::kRoutes[] = {
    {"POST", "/v1/chat/completions", "chat", Action::kChat},
    {"POST", "/v1/completions", "completions", Action::kCompletions},
    {"POST", "/v1/chat/completions/render", "render", Action::kRender},
    {"POST", "/tokenize", "tokenize", Action::kTokenize},
    {"POST", "/v1/tokenize", "tokenize", Action::kTokenize},
    {"POST", "/detokenize", "detokenize", Action::kDetokenize},
    {"POST", "/v1/detokenize", "detokenize", Action::kDetokenize},
    {"GET", "/v1/models", "models", Action::kModels},
    {"GET", "/v1/models/*", "model", Action::kModel},
    {"POST", "/completion", "llama_completion", Action::kLlamaCompletion},
    // What SillyTavern's text backends ask of the servers that it knows (spec model.md 4.3).
    {"GET", "/v1/model/list", "models", Action::kModels},
    {"GET", "/v1/model", "tabby_model", Action::kTabbyModel},
    {"POST", "/v1/token/encode", "token_encode", Action::kTabbyEncode},
    {"POST", "/v1/token/decode", "token_decode", Action::kTabbyDecode},
    {"GET", "/v1/internal/model/info", "ooba_model", Action::kOobaModel},
    {"POST", "/v1/internal/encode", "token_encode", Action::kTabbyEncode},
    {"POST", "/api/extra/tokencount", "token_count", Action::kKoboldCount},
    {"GET", "/props", "props", Action::kProps},
    {"GET", "/v1/thinking/presets", "presets", Action::kPresets},
    {"POST", "/v1/requests/*/cancel", "cancel", Action::kCancel},
    {"POST", "/v1/requests/*/end_thinking", "end_thinking", Action::kEndThinking},
    {"GET", "/health", "health", Action::kHealth, true},
    {"GET", "/live", "live", Action::kLive, true},
    {"GET", "/ping", "ping", Action::kLive, true},
    {"GET", "/version", "version", Action::kVersion, true},
    {"GET", "/load", "load", Action::kLoad, true},
    {"GET", "/openapi.json", "openapi", Action::kOpenApi, true},
    {"GET", "/", "page", Action::kPage, true},
};

namespace {

bool ValidRequestId(std::string_view id) {
  return !id.empty() && id.size() <= 128 && std::all_of(id.begin(), id.end(), [](char c) {
    return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == ':' || c == '-';
  });
}

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

// The media type without its parameters, e.g. "application/json; charset=utf-8".
bool IsJson(std::string_view content_type) {
  const std::string_view type = content_type.substr(0, content_type.find(';'));
  return absl::EqualsIgnoreCase(absl::StripAsciiWhitespace(View(type)), "application/json");
}

std::string_view NameOf(WorkerState state) {
  switch (state) {
    case WorkerState::kLoading:
      return "loading";
    case WorkerState::kWarming:
      return "warming";
    case WorkerState::kReady:
      return "ready";
    case WorkerState::kDraining:
      return "draining";
    case WorkerState::kFailed:
      return "failed";
    case WorkerState::kUnknown:
      break;
  }
  return "no_worker";
}

}  // namespace

FrontDoor::FrontDoor(const Services* services, absl::Time started)
    : services_(services),
      started_(started),
      openapi_(OpenApiJson(Describe(), support::Version()), "application/json"),
      page_(std::string(PageHtml()), "text/html; charset=utf-8",
            {{"Content-Security-Policy", PagePolicy(PageHtml())},
             {"Referrer-Policy", "no-referrer"}}) {}

std::vector<DescribedRoute> FrontDoor::Describe() {
  std::vector<DescribedRoute> routes;
  for (const Route& route : kRoutes) {
    routes.push_back({.method = route.method,
                      .pattern = route.pattern,
                      .name = route.name,
                      .is_public = route.is_public});
  }
  return routes;
}

Application::Verdict FrontDoor::Begin(const RequestHead& head, Loop& loop) {
  std::string allowed;
  for (const Route& route : kRoutes) {
    const auto id = route.Match(head.path);
    if (!id) continue;
    if (route.method == head.method || (route.method == "GET" && head.method == "HEAD")) {
      return Open(route, *id, head, loop);
    }
    absl::StrAppend(&allowed, allowed.empty() ? "" : ", ", View(route.method),
                    route.method == "GET" ? ", HEAD" : "");
  }
  if (allowed.empty()) return Refuse(404, "There is nothing at this path.");
  Response response = Refuse(405, absl::StrCat("This path takes ", allowed, "."));
  response.headers.emplace_back("Allow", allowed);
  return response;
}

Response FrontDoor::Refuse(int status, std::string_view message) {
  services_->probe->OnRequest("none", status, 0);
  return ErrorResponse(HttpError(status, message));
}

absl::StatusOr<Caller> FrontDoor::WhoCalls(const RequestHead& head) const {
  if (services_->keys->open()) return Caller{};
  if (CountHeader(head.headers, "authorization") > 1 ||
      CountHeader(head.headers, "x-api-key") > 1) {
    return WrongKey("More than one API key was sent.");
  }
  auto caller = services_->keys->Identify(head.Find("authorization"), head.Find("x-api-key"));
  if (!caller) return WrongKey("The API key is missing or wrong.");
  return *std::move(caller);
}

Application::Verdict FrontDoor::Open(const Route& route, std::string_view id,
                                     const RequestHead& head, Loop& loop) {
  Caller caller;
  if (!route.is_public) {
    auto known = WhoCalls(head);
    if (!known.ok()) {
      services_->probe->OnRejected("key");
      return Counted(route, ErrorResponse(known.status()));
    }
    caller = *std::move(known);
  }
  if (route.ReadsBody()) return OpenBody(route, head, std::move(caller), loop);
  switch (route.action) {
    case Action::kModels:
      return Counted(route, Models());
    case Action::kModel:
      return Counted(route, Model(id));
    case Action::kTabbyModel:
    case Action::kOobaModel:
      return Counted(route, FirstModel(route));
    case Action::kProps:
      return Counted(route, Props());
    case Action::kPresets:
      return Counted(route, {.body = services_->presets->ToJson()});
    case Action::kHealth:
      return Counted(route, Health());
    case Action::kLoad:
      return Counted(route, Load());
    case Action::kOpenApi:
      return Counted(route, openapi_.Reply(head));
    case Action::kPage:
      return Counted(route, page_.Reply(head));
    case Action::kVersion:
      return Counted(route, {.body = nlohmann::json{{"version", support::Version()},
                                                    {"commit", support::Commit()}}
                                         .dump()});
    case Action::kCancel:
    case Action::kEndThinking:
      return Counted(route, Control(route, id, caller));
    default:
      return Counted(route, {.body = "{}"});
  }
}

Application::Verdict FrontDoor::OpenBody(const Route& route, const RequestHead& head, Caller caller,
                                         Loop& loop) {
  if (const auto coding = head.Find("content-encoding"); coding && *coding != "identity") {
    return Refuse(415, "Content-Encoding is not taken: send the body as it is.");
  }
  if (const auto type = head.Find("content-type"); type && !IsJson(*type)) {
    return Refuse(415, "The Content-Type must be application/json.");
  }
  auto ticket = services_->admission->Enter(caller.id, loop.Now(), caller.limits);
  if (!ticket.ok()) {
    const ApiError error = ToApiError(ticket.status());
    services_->probe->OnRejected(error.http == 429                  ? "key_limit"
                                 : services_->admission->draining() ? "draining"
                                                                    : "full");
    return Counted(route, ErrorResponse(error));
  }
  const auto prefer = head.Find("prefer");
  const bool strict =
      prefer && absl::StrContains(absl::AsciiStrToLower(View(*prefer)), "handling=strict");
  switch (route.action) {
    case Action::kChat:
    case Action::kCompletions:
    case Action::kLlamaCompletion: {
      const auto client_id = head.Find("x-request-id");
      return std::make_shared<GenerationSession>(GenerationSession::Setup{
          .services = services_,
          .loop = &loop,
          .kind = route.action == Action::kChat ? ChunkWriter::Kind::kChat
                                                : ChunkWriter::Kind::kCompletion,
          .llama = route.action == Action::kLlamaCompletion,
          .caller = std::move(caller.id),
          .client_request_id =
              client_id && ValidRequestId(*client_id) ? std::string(*client_id) : "",
          .strict = strict,
          .ticket = *std::move(ticket)});
    }
    default:
      return std::make_shared<TokenSession>(services_, &loop, route.token_kind(), strict,
                                            *std::move(ticket));
  }
}

Response FrontDoor::Counted(const Route& route, Response response) const {
  services_->probe->OnRequest(route.name, response.status, 0);
  return response;
}

Response FrontDoor::Control(const Route& route, std::string_view id, const Caller& caller) const {
  const auto action = route.action == Action::kCancel ? RequestRegistry::Action::kCancel
                                                      : RequestRegistry::Action::kEndThinking;
  RequestRegistry& registry = *services_->registry;
  const std::string name(id);
  if (!(caller.admin ? registry.ActOnAny(name, action) : registry.Act(caller.id, name, action))) {
    return ErrorResponse(HttpError(404, "No request of that id is in flight."));
  }
  return {.body = nlohmann::json{{"id", std::string(id)}, {"accepted", true}}.dump()};
}

bool FrontDoor::Ready() const {
  return !services_->admission->draining() && services_->tokenizer->available() &&
         services_->text->Get() != nullptr && services_->workers->View().usable > 0;
}

Response FrontDoor::Health() const {
  const PoolView view = services_->workers->View();
  const bool tokenizer = services_->tokenizer->available() && services_->text->Get() != nullptr;
  const bool draining = services_->admission->draining();
  const bool ready = !draining && tokenizer && view.usable > 0;
  std::string_view state = NameOf(view.best_state);
  if (view.usable == 0 && view.other_tokenizer) state = "other_tokenizer";
  if (view.usable > 0 && !tokenizer) state = "no_tokenizer";
  if (draining) state = "draining";
  nlohmann::json body = {{"status", ready ? "ready" : "unavailable"},
                         {"state", state},
                         {"load_percent", view.load_percent},
                         {"eta_s", nullptr},
                         {"workers", {{"known", view.workers}, {"usable", view.usable}}},
                         {"tokenizer", tokenizer}};
  if (view.eta) body["eta_s"] = absl::ToDoubleSeconds(*view.eta);
  Response response{.status = ready ? 200 : 503, .body = body.dump()};
  if (!ready) response.headers.emplace_back("Retry-After", "1");
  return response;
}

Response FrontDoor::Load() const {
  const PoolView view = services_->workers->View();
  return {.body = nlohmann::json{{"server_load", services_->admission->in_flight()},
                                 {"running", view.running_sequences},
                                 {"waiting", view.waiting_requests},
                                 {"kv_use", view.kv_use}}
                      .dump()};
}

// What a client of one model's server sees: the first one served.
Response FrontDoor::FirstModel(const Route& route) const {
  const auto model = FindModel(services_->workers->View(), "");
  if (!model.ok()) return ErrorResponse(model.status());
  const ModelEntry entry{.id = model->name,
                         .root = model->root,
                         .created_s = absl::ToUnixSeconds(started_),
                         .max_model_len = model->context_tokens};
  return {.body =
              route.action == Action::kTabbyModel ? TabbyModelJson(entry) : OobaModelJson(entry)};
}

Response FrontDoor::Props() const {
  const auto model = FindModel(services_->workers->View(), "");
  if (!model.ok()) return ErrorResponse(model.status());
  const auto text = services_->text->Get();
  if (!text) {
    return ErrorResponse(WithRetryAfter(absl::UnavailableError("The tokenizer is not ready."), 2));
  }
  return {.body = LlamaPropsJson({.model = model->name,
                                  .context_tokens = model->context_tokens,
                                  .chat_template = text->vocabulary->chat_template,
                                  .bos_token = text->vocabulary->bos_token,
                                  .eos_token = text->vocabulary->eos_token,
                                  .build = support::Version()})};
}

Response FrontDoor::Models() const {
  std::vector<ModelEntry> entries;
  for (const ServedModel& model : services_->workers->View().models) {
    entries.push_back({.id = model.name,
                       .root = model.root,
                       .created_s = absl::ToUnixSeconds(started_),
                       .max_model_len = model.context_tokens});
  }
  return {.body = ModelListJson(entries)};
}

Response FrontDoor::Model(std::string_view id) const {
  const auto name = PercentDecode(id);
  if (!name) return ErrorResponse(InvalidField("model", "The model's name is badly encoded."));
  const auto model = FindModel(services_->workers->View(), *name);
  if (!model.ok()) return ErrorResponse(model.status());
  return {.body = ModelJson({.id = model->name,
                             .root = model->root,
                             .created_s = absl::ToUnixSeconds(started_),
                             .max_model_len = model->context_tokens})};
}

}  // namespace behemoth::gateway
