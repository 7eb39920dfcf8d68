// One /v1/chat/completions or /v1/completions request, from its body to its last byte.
//
// Life: made when admitted (holds the ticket) -> Start -> parse -> prepare -> generate -> reply.
// Loop thread only. Owns everything it holds: destroying it cancels the generations and returns the
// ticket. Before the first byte an error is an HTTP status; after it an SSE error event and the end
// of the stream without [DONE].
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gateway/api/chat_request.h"
#include "gateway/api/chunk_writer.h"
#include "gateway/api/completion_request.h"
#include "gateway/api/door_replies.h"
#include "gateway/api/replies.h"
#include "gateway/http/application.h"
#include "gateway/session/generation.h"
#include "gateway/session/phrases.h"
#include "gateway/session/prompt.h"
#include "gateway/session/request_registry.h"
#include "gateway/session/services.h"

namespace behemoth::gateway {

class GenerationSession final : public Exchange,
                                public GenerationSink,
                                public Controllable,
                                public std::enable_shared_from_this<GenerationSession> {
 public:
  struct Setup {
    const Services* services;
    Loop* loop;
    ChunkWriter::Kind kind;
    bool llama = false;             // a completion in llama.cpp's own shape (api/door_replies.h)
    std::string caller;             // the key's identity
    std::string client_request_id;  // valid X-Request-Id, or empty
    bool strict = false;            // Prefer: handling=strict
    Ticket ticket;
  };
  explicit GenerationSession(Setup setup);
  ~GenerationSession() override;

  // Exchange
  void Start(std::string body, std::shared_ptr<Responder> responder) override;
  void OnGone() override;
  void OnDrained() override;

  // GenerationSink
  void OnProgress(const ProgressEvent& progress) override;
  void OnDelta(uint32_t choice, GenerationDelta delta) override;
  void OnEnd(uint32_t choice, const SequenceEnd& end) override;
  void OnPromptLogprobs(std::vector<std::optional<TokenLogprobs>> logprobs) override;
  void OnGenerationDone(absl::Status status) override;

  // Controllable
  void EndByControl() override;
  void EndThinkingByControl() override;

 private:
  struct Choice {
    std::string content, reasoning;
    std::vector<uint32_t> ids;
    std::vector<TokenLogprobs> logprobs;
    std::vector<ToolCallOut> calls;  // of a whole reply
    SequenceEnd end;
    size_t text_offset = 0;  // code points before the next token, echo included
    absl::Time last_tokens = absl::InfinitePast();
  };

  absl::Status Parse(const std::string& body);
  void Prepare();
  void OnPrepared(absl::StatusOr<PreparedPrompts> prompts);
  void OnPhrases(absl::StatusOr<IdLists> encoded);
  absl::Status PlanGenerations(const PhraseIds& phrases);
  void BeginGenerations();
  void Fail(absl::Status status);
  void Close(int code);

  void OpenStream();
  void SendChunks();
  void Beat();
  void FinishStream();
  void FinishReply();
  ReplyTail Tail() const;
  std::string ChatBody();
  std::string CompletionBody();
  void AppendText(uint32_t choice, const ChatDelta& text, const ChunkExtras& extras);
  void AppendLlamaFinish(const LlamaChunk& chunk);
  std::string Echo(uint32_t choice) const;
  Response WithIds(Response response) const;
  std::vector<ToolCallOut> TakeCalls(Choice& choice, std::vector<ToolCallDelta> deltas);
  void MeasureTokens(Choice& choice, size_t tokens);
  void FinishCancelled();

  Setup setup_;
  const absl::Time arrival_;
  size_t body_hash_ = 0;
  std::shared_ptr<Responder> responder_;
  std::shared_ptr<const ModelText> text_;
  ServedModel model_;
  GenerationOptions options_;
  ReasoningFormat reasoning_ = ReasoningFormat::kNone;
  std::optional<uint32_t> thinking_budget_;
  ChatPrompt chat_prompt_;
  std::vector<RawPrompt> raw_prompts_;
  bool add_special_tokens_ = true;
  PreparedPrompts prompts_;
  std::vector<std::unique_ptr<Generation>> generations_;
  std::vector<Choice> choices_;
  std::optional<std::vector<std::optional<TokenLogprobs>>> prompt_logprobs_;
  ReplyHead head_;
  std::optional<ChunkWriter> chunks_;
  std::string out_;  // SSE bytes of this event
  std::unique_ptr<Timer> heartbeat_;
  ProgressEvent progress_;
  size_t generations_done_ = 0;
  size_t warned_ = 0;  // of options_.warnings: those that the stream has told
  bool streaming_ = false, closed_ = false, paused_ = false, registered_ = false;
  bool first_token_seen_ = false, begun_ = false, cancel_asked_ = false;
};

}  // namespace behemoth::gateway
