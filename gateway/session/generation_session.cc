#include "gateway/session/generation_session.h"

#include <absl/hash/hash.h>
#include <absl/strings/str_cat.h>

#include <algorithm>
#include <utility>

#include "gateway/api/api_error.h"
#include "gateway/session/error_response.h"
#include "gateway/session/generation_plan.h"
#include "proto/support/log.h"
#include "proto/support/version.h"

namespace behemoth::gateway {
namespace {

size_t CodePoints(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

}  // namespace

GenerationSession::GenerationSession(Setup setup)
    : setup_(std::move(setup)), arrival_(setup_.loop->Now()) {
  setup_.services->probe->OnInFlight(+1);
}

GenerationSession::~GenerationSession() {
  if (registered_) {
    setup_.services->registry->Remove(setup_.caller, head_.id, this);
    setup_.services->registry->Remove(setup_.caller, setup_.client_request_id, this);
  }
  setup_.services->probe->OnInFlight(-1);
}

void GenerationSession::Start(std::string body, std::shared_ptr<Responder> responder) {
  responder_ = std::move(responder);
  body_hash_ = absl::HashOf(body);
  if (const absl::Status status = Parse(body); !status.ok()) return Fail(status);
  auto model = FindModel(setup_.services->workers->View(), options_.model);
  if (!model.ok()) return Fail(model.status());
  model_ = *std::move(model);
  text_ = setup_.services->text->Get();
  if (!text_ || !setup_.services->tokenizer->available()) {
    return Fail(WithRetryAfter(absl::UnavailableError("The tokenizer is not ready."), 2));
  }
  if (setup_.client_request_id.empty()) setup_.client_request_id = options_.request_id.value_or("");
  const bool chat = setup_.kind == ChunkWriter::Kind::kChat;
  head_ = {.id = absl::StrCat(chat ? "chatcmpl-" : "cmpl-", NewRequestId()),
           .created_s = absl::ToUnixSeconds(setup_.loop->Now()),
           .model = options_.model.empty() ? model_.name : options_.model,
           .system_fingerprint = absl::StrCat("behemoth-", support::Version(), "-",
                                              model_.weights_fingerprint.substr(0, 12))};
  setup_.services->registry->Add(setup_.caller, head_.id, weak_from_this(), setup_.loop);
  if (!setup_.client_request_id.empty()) {
    setup_.services->registry->Add(setup_.caller, setup_.client_request_id, weak_from_this(),
                                   setup_.loop);
  }
  registered_ = true;
  Prepare();
}

absl::Status GenerationSession::Parse(const std::string& body) {
  ParseOptions parse = setup_.services->parse;
  parse.strict = setup_.strict;
  if (setup_.kind == ChunkWriter::Kind::kChat) {
    auto request = ParseChatRequest(body, parse);
    if (!request.ok()) return request.status();
    if (const auto status = setup_.services->presets->Apply(*request); !status.ok()) return status;
    if (request->thinking) thinking_budget_ = request->thinking->budget_tokens;
    reasoning_ = request->reasoning_format;
    chat_prompt_ = std::move(request->prompt);
    options_ = std::move(request->options);
    return absl::OkStatus();
  }
  if (setup_.llama) parse.completion_max_tokens.reset();
  auto request = ParseCompletionRequest(body, parse);
  if (!request.ok()) return request.status();
  if (setup_.llama) {
    if (request->prompts.size() > 1 || request->options.n > 1) {
      return InvalidField(request->options.n > 1 ? "n" : "prompt", "this path takes one");
    }
    if (std::exchange(request->reasoning_format, ReasoningFormat::kNone) !=
        ReasoningFormat::kNone) {
      const Warning warning{"reasoning_format",
                            "this path's reply has no place for it: the text comes as written"};
      if (parse.strict) return InvalidField(warning.field, warning.message);
      request->options.warnings.push_back(warning);
    }
  }
  reasoning_ = request->reasoning_format;
  raw_prompts_ = std::move(request->prompts);
  add_special_tokens_ = request->add_special_tokens;
  options_ = std::move(request->options);
  return absl::OkStatus();
}

void GenerationSession::Prepare() {
  Prepared done = [weak = weak_from_this()](absl::StatusOr<PreparedPrompts> prompts) {
    if (const auto self = weak.lock()) self->OnPrepared(std::move(prompts));
  };
  const absl::Time deadline = arrival_ + setup_.services->limits.request_timeout;
  if (setup_.kind == ChunkWriter::Kind::kChat) {
    PrepareChat(*setup_.services, *text_, std::move(chat_prompt_), deadline, *setup_.loop,
                std::move(done));
  } else {
    PrepareRaw(*setup_.services, *text_, std::move(raw_prompts_), add_special_tokens_, deadline,
               *setup_.loop, std::move(done));
  }
}

void GenerationSession::OnPrepared(absl::StatusOr<PreparedPrompts> prompts) {
  if (closed_) return;
  if (!prompts.ok()) return Fail(prompts.status());
  prompts_ = *std::move(prompts);
  std::vector<EncodeInput> inputs = PhraseInputs(options_.sampling, thinking_budget_.has_value());
  if (inputs.empty()) return OnPhrases(IdLists());
  setup_.services->tokenizer->Encode(
      std::move(inputs), arrival_ + setup_.services->limits.request_timeout, *setup_.loop,
      [weak = weak_from_this()](absl::StatusOr<IdLists> encoded) {
        const auto self = weak.lock();
        if (self) self->OnPhrases(std::move(encoded));
      });
}

void GenerationSession::OnPhrases(absl::StatusOr<IdLists> encoded) {
  if (closed_) return;
  if (!encoded.ok()) return Fail(encoded.status());
  const auto phrases =
      PhraseIdsOf(options_.sampling, thinking_budget_.has_value(), *std::move(encoded));
  if (!phrases.ok()) return Fail(phrases.status());
  if (const auto status = PlanGenerations(*phrases); !status.ok()) return Fail(status);
  BeginGenerations();
}

absl::Status GenerationSession::PlanGenerations(const PhraseIds& phrases) {
  for (const PreparedPrompt& prompt : prompts_) {
    auto plan = PlanGeneration({.options = &options_,
                                .reasoning = reasoning_,
                                .prompt = &prompt,
                                .model = &model_,
                                .vocabulary = text_->vocabulary.get(),
                                .phrases = &phrases,
                                .thinking_budget = thinking_budget_,
                                .request_id = NewRequestId(),
                                .fairness_key = setup_.caller + "/" + options_.user,
                                .deadline = arrival_ + setup_.services->limits.request_timeout,
                                .content_hash = absl::HashOf(body_hash_, generations_.size())});
    if (!plan.ok()) return plan.status();
    const auto first = static_cast<uint32_t>(generations_.size() * options_.n);
    generations_.push_back(std::make_unique<Generation>(*std::move(plan), first, this));
  }
  choices_.resize(generations_.size() * options_.n);
  for (uint32_t i = 0; i < choices_.size(); ++i) {
    choices_[i].text_offset = CodePoints(Echo(i));
    if (!options_.output.stream) choices_[i].content = Echo(i);
  }
  return absl::OkStatus();
}

void GenerationSession::BeginGenerations() {
  if (options_.output.stream) {
    chunks_.emplace(setup_.kind, head_, options_.output.include_usage);
    heartbeat_ = setup_.loop->NewTimer();
    heartbeat_->Start(setup_.services->limits.heartbeat, [this] { Beat(); });
  }
  if (cancel_asked_) return FinishCancelled();
  begun_ = true;
  for (size_t i = 0; i < generations_.size(); ++i) {
    generations_[i]->Start(*setup_.services->workers, *setup_.loop);
  }
}

std::string GenerationSession::Echo(uint32_t choice) const {
  if (!options_.output.echo) return "";
  const PreparedPrompt& prompt = prompts_[choice / options_.n];
  if (setup_.kind == ChunkWriter::Kind::kChat) return prompt.prefill;
  if (!prompt.text.empty()) return prompt.text;
  Detokenizer detokenizer(text_->vocabulary->table, {.skip_special_tokens = false});
  std::string text;
  for (const uint32_t id : prompt.ids) detokenizer.Push(id, text);
  detokenizer.Flush(text);
  return text;
}

void GenerationSession::OnProgress(const ProgressEvent& progress) { progress_ = progress; }

void GenerationSession::OnPromptLogprobs(std::vector<std::optional<TokenLogprobs>> logprobs) {
  if (options_.output.prompt_logprobs) prompt_logprobs_ = std::move(logprobs);
}

void GenerationSession::MeasureTokens(Choice& choice, size_t tokens) {
  const absl::Time now = setup_.loop->Now();
  if (!std::exchange(first_token_seen_, true)) {
    setup_.services->probe->OnFirstToken(absl::ToDoubleSeconds(now - arrival_));
  }
  if (choice.last_tokens != absl::InfinitePast()) {
    setup_.services->probe->OnTokensAfter(absl::ToDoubleSeconds(now - choice.last_tokens),
                                          static_cast<int>(tokens));
  }
  choice.last_tokens = now;
}

// Adds the ids, which are ours: the model's own come behind the arguments, if at all. A whole reply
// keeps the calls, a stream gives them out.
std::vector<ToolCallOut> GenerationSession::TakeCalls(Choice& choice,
                                                      std::vector<ToolCallDelta> deltas) {
  std::vector<ToolCallOut> out;
  for (ToolCallDelta& delta : deltas) {
    ToolCallOut call{.index = delta.index,
                     .name = std::move(delta.name),
                     .arguments = std::move(delta.arguments)};
    if (!call.name.empty()) call.id = NewToolCallId();
    if (options_.output.stream) {
      out.push_back(std::move(call));
    } else if (!call.name.empty()) {
      choice.calls.push_back(std::move(call));
    } else {
      choice.calls.back().arguments += call.arguments;
    }
  }
  return out;
}

void GenerationSession::OnDelta(uint32_t index, GenerationDelta delta) {
  if (closed_) return;
  Choice& choice = choices_[index];
  if (!delta.ids.empty()) MeasureTokens(choice, delta.ids.size());
  const std::vector<ToolCallOut> calls = TakeCalls(choice, std::move(delta.text.calls));
  if (!options_.output.stream) {
    choice.content += delta.text.content;
    choice.reasoning += delta.text.reasoning;
    if (options_.output.return_token_ids) {
      choice.ids.insert(choice.ids.end(), delta.ids.begin(), delta.ids.end());
    }
    std::move(delta.logprobs.begin(), delta.logprobs.end(), std::back_inserter(choice.logprobs));
    return;
  }
  const bool something = !delta.text.content.empty() || !delta.text.reasoning.empty() ||
                         !calls.empty() || options_.output.return_token_ids ||
                         !delta.logprobs.empty();
  if (!something) return;
  OpenStream();
  ChunkExtras extras;
  extras.logprobs = delta.logprobs;
  if (options_.output.return_token_ids) extras.token_ids = delta.ids;
  if (options_.output.continuous_usage_stats) extras.usage = Tail().usage;
  extras.text_offset = choice.text_offset;
  // By the tokens, as a whole reply counts: their text may be held back and come later than they
  // do.
  for (const TokenLogprobs& one : delta.logprobs) choice.text_offset += CodePoints(one.token.bytes);
  const ChatDelta text{
      .content = delta.text.content, .reasoning = delta.text.reasoning, .calls = calls};
  AppendText(index, text, extras);
  SendChunks();
}

void GenerationSession::AppendText(uint32_t index, const ChatDelta& text,
                                   const ChunkExtras& extras) {
  out_ += "data: ";
  if (setup_.llama) {
    AppendLlamaChunk(
        {.content = text.content, .token_ids = extras.token_ids, .logprobs = extras.logprobs},
        out_);
  } else if (setup_.kind == ChunkWriter::Kind::kChat) {
    chunks_->Chat(index, text, extras, out_);
  } else {
    chunks_->Completion(index, text, extras, out_);
  }
  out_ += "\n\n";
}

void GenerationSession::AppendLlamaFinish(const LlamaChunk& chunk) {
  const ReplyTail tail = Tail();
  AppendLlamaEnd({.chunk = chunk,
                  .model = head_.model,
                  .finish = choices_[0].end.reason,
                  .stop = choices_[0].end.stop,
                  .usage = tail.usage,
                  .timings = tail.timings,
                  .warnings = tail.warnings},
                 out_);
}

void GenerationSession::OnEnd(uint32_t index, const SequenceEnd& end) {
  if (closed_) return;
  choices_[index].end = end;
  if (end.warning) options_.warnings.push_back(*end.warning);
  if (!options_.output.stream || setup_.llama) return;  // llama.cpp's last chunk says it all
  OpenStream();
  ChunkExtras extras;
  if (options_.output.continuous_usage_stats) extras.usage = Tail().usage;
  out_ += "data: ";
  chunks_->Finish(
      index, {.reason = end.reason, .stop_reason = end.stop}, extras,
      std::span(options_.warnings).subspan(std::exchange(warned_, options_.warnings.size())), out_);
  out_ += "\n\n";
  SendChunks();
}

void GenerationSession::OnGenerationDone(absl::Status status) {
  if (closed_) return;
  if (!status.ok()) return Fail(std::move(status));
  if (++generations_done_ < generations_.size()) return;
  options_.output.stream ? FinishStream() : FinishReply();
}

// ---- Streaming
// -----------------------------------------------------------------------------------

void GenerationSession::OpenStream() {
  if (std::exchange(streaming_, true)) return;
  Response head{.content_type = "text/event-stream; charset=utf-8"};
  head.headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}};
  responder_->BeginStream(WithIds(std::move(head)));
  for (uint32_t i = 0; i < choices_.size(); ++i) {
    const std::string echo = Echo(i);
    if (setup_.kind == ChunkWriter::Kind::kChat) {
      out_ += "data: ";
      chunks_->Role(i, out_);
      out_ += "\n\n";
    }
    if (echo.empty()) continue;
    AppendText(i, {.content = echo}, {});
  }
}

void GenerationSession::SendChunks() {
  responder_->Write(out_);
  out_.clear();
  heartbeat_->Start(setup_.services->limits.heartbeat, [this] { Beat(); });
  if (!paused_ && responder_->queued_bytes() > setup_.services->limits.pause_bytes) {
    paused_ = true;
    for (auto& generation : generations_) generation->Pause(true);
  }
}

void GenerationSession::OnDrained() {
  if (closed_ || !std::exchange(paused_, false)) return;
  const auto alive = shared_from_this();
  for (auto& generation : generations_) {
    if (closed_ || paused_) return;
    generation->Pause(false);
  }
}

void GenerationSession::Beat() {
  OpenStream();
  if (progress_.state == ProgressEvent::State::kWaiting) {
    absl::StrAppend(&out_, ": waiting queue_position=", progress_.queue_position, "\n\n");
  } else {
    absl::StrAppend(&out_, ": prefilled=", progress_.prefilled_tokens, "/", progress_.prompt_tokens,
                    "\n\n");
  }
  SendChunks();
}

void GenerationSession::FinishStream() {
  OpenStream();
  const ReplyTail tail = Tail();
  if (setup_.llama) {
    out_ += "data: ";
    AppendLlamaFinish({});
    out_ += "\n\n";
    responder_->Write(out_);
    responder_->End(true);
    return Close(200);
  }
  if (options_.output.include_usage || tail.timings) {
    out_ += "data: ";
    chunks_->Closing(options_.output.include_usage ? std::optional(tail.usage) : std::nullopt,
                     tail.timings, out_);
    out_ += "\n\n";
  }
  out_ += "data: [DONE]\n\n";
  responder_->Write(out_);
  responder_->End(true);
  Close(200);
}

// ---- Whole replies and ends
// ----------------------------------------------------------------------

ReplyTail GenerationSession::Tail() const {
  ReplyTail tail;
  for (const auto& generation : generations_) {
    const Usage& usage = generation->usage();
    tail.usage.prompt_tokens += usage.prompt_tokens;
    tail.usage.cached_tokens += usage.cached_tokens;
    tail.usage.completion_tokens += usage.completion_tokens;
    tail.usage.reasoning_tokens += usage.reasoning_tokens;
  }
  if (options_.output.return_timings && !generations_.empty())
    tail.timings = generations_.front()->timings();
  tail.prompt_logprobs = prompt_logprobs_;
  tail.warnings = options_.warnings;
  return tail;
}

std::string GenerationSession::ChatBody() {
  std::vector<ChatChoice> choices;
  for (uint32_t i = 0; i < choices_.size(); ++i) {
    Choice& from = choices_[i];
    ChatChoice& to = choices.emplace_back();
    to = {.index = i,
          .content = std::move(from.content),
          .calls = std::move(from.calls),
          .finish = from.end.reason,
          .stop_reason = std::move(from.end.stop)};
    if (reasoning_ == ReasoningFormat::kSeparate) to.reasoning = std::move(from.reasoning);
    if (options_.output.top_logprobs) to.logprobs = std::move(from.logprobs);
    if (options_.output.return_token_ids) to.token_ids = std::move(from.ids);
  }
  ReplyTail tail = Tail();
  if (options_.output.return_token_ids) tail.prompt_token_ids = prompts_.front().ids;
  return ChatReplyJson(head_, choices, tail);
}

std::string GenerationSession::CompletionBody() {
  std::vector<CompletionChoice> choices;
  for (uint32_t i = 0; i < choices_.size(); ++i) {
    Choice& from = choices_[i];
    CompletionChoice& to = choices.emplace_back();
    to = {.index = i,
          .text = std::move(from.content),
          .finish = from.end.reason,
          .stop_reason = std::move(from.end.stop),
          .logprobs_text_offset = from.text_offset};
    if (reasoning_ == ReasoningFormat::kSeparate) to.reasoning = std::move(from.reasoning);
    if (options_.output.top_logprobs) to.logprobs = std::move(from.logprobs);
    if (options_.output.return_token_ids) {
      to.token_ids = std::move(from.ids);
      to.prompt_token_ids = prompts_[i / options_.n].ids;
    }
  }
  return CompletionReplyJson(head_, choices, Tail());
}

void GenerationSession::FinishReply() {
  Response response;
  if (setup_.llama) {
    const Choice& only = choices_[0];
    AppendLlamaFinish({.content = only.content, .token_ids = only.ids, .logprobs = only.logprobs});
    response.body = std::move(out_);
  } else {
    response.body = setup_.kind == ChunkWriter::Kind::kChat ? ChatBody() : CompletionBody();
  }
  responder_->Send(WithIds(std::move(response)));
  Close(200);
}

// The client's own id where it is a sane one, else ours.
Response GenerationSession::WithIds(Response response) const {
  const std::string& id = setup_.client_request_id.empty() ? head_.id : setup_.client_request_id;
  if (!id.empty()) response.headers.emplace_back("X-Request-Id", id);
  return response;
}

void GenerationSession::Fail(absl::Status status) {
  if (closed_) return;
  const ApiError error = ToApiError(status);
  support::Log().info("request failed id={} http={} status=\"{}\"", support::Escaped(head_.id),
                      error.http, support::Escaped(status.ToString()));
  if (streaming_) {
    responder_->Write(absl::StrCat("data: ", ErrorJson(error), "\n\n"));
    responder_->End(false);
  } else {
    if (error.http == 503) setup_.services->probe->OnRejected("unavailable");
    if (error.code_name == "request_quarantined") {
      setup_.services->probe->OnRejected("quarantined");
    }
    responder_->Send(WithIds(ErrorResponse(error)));
  }
  Close(error.http);
}

void GenerationSession::Close(int code) {
  if (std::exchange(closed_, true)) return;
  const Usage usage = generations_.empty() ? Usage{} : Tail().usage;
  setup_.services->probe->OnUsage(static_cast<int>(usage.prompt_tokens),
                                  static_cast<int>(usage.cached_tokens),
                                  static_cast<int>(usage.completion_tokens));
  setup_.services->probe->OnRequest(
      setup_.kind == ChunkWriter::Kind::kChat ? "chat" : "completions", code,
      absl::ToDoubleSeconds(setup_.loop->Now() - arrival_));
  responder_.reset();
  heartbeat_.reset();
  setup_.ticket = {};
  // A generation, or its call, may be what is calling us: they go when the stack is unwound.
  setup_.loop->Post([self = shared_from_this()] { self->generations_.clear(); });
}

void GenerationSession::OnGone() {
  if (closed_) return;
  setup_.services->probe->OnCancelled(!responder_          ? "body"
                                      : !begun_            ? "tokenizing"
                                      : !first_token_seen_ ? "waiting"
                                                           : "decoding");
  const auto alive = shared_from_this();
  Close(499);
  generations_.clear();  // called by the connection, never from inside a generation
}

void GenerationSession::EndByControl() {
  if (closed_) return;
  cancel_asked_ = true;  // before its generations begin: they never do
  if (!begun_) return;
  for (auto& generation : generations_) generation->EndByControl();
}

void GenerationSession::FinishCancelled() {
  for (uint32_t i = 0; i < choices_.size(); ++i) OnEnd(i, {.reason = FinishReason::kCancelled});
  options_.output.stream ? FinishStream() : FinishReply();
}

void GenerationSession::EndThinkingByControl() {
  if (closed_ || !begun_) return;
  std::vector<EncodeInput> inputs(1);
  inputs[0].segments.push_back({.text = "\n</think>\n\n"});
  setup_.services->tokenizer->Encode(std::move(inputs), setup_.loop->Now() + absl::Seconds(5),
                                     *setup_.loop,
                                     [weak = weak_from_this()](absl::StatusOr<IdLists> ids) {
                                       const auto self = weak.lock();
                                       if (!self || self->closed_ || !ids.ok()) return;
                                       for (auto& generation : self->generations_)
                                         generation->EndThinking(ids->front());
                                     });
}

}  // namespace behemoth::gateway
