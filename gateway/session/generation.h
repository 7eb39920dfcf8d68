// One prompt at one worker: its n sequences, from events of ids to text, stops and ends.
//
// Life: constructed -> Start -> sink calls -> OnGenerationDone, once; destroying it cancels. Loop
// thread only. Knows no JSON and no HTTP.
// A text stop ends its sequence here and now; when all have ended, the worker's stream is
// cancelled.
// Banned strings: a token is held back while it may be part of one; where one is complete the
// worker is told to take back the token in which it began and to say another one there. At one
// place at most kMaxRewindsAtToken times, in a sequence kMaxRewinds; then the sequence ends in
// front of it (kStop, the string as its reason, a warning). What was taken back is counted in the
// usage. A thinking budget is exact: what the model said beyond it is taken back; so is what it
// said behind a thought that a call must follow. Tool calls that are whole make the finish reason
// kToolCalls; a malformed one a warning.
#pragma once

#include <absl/status/status.h>

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gateway/api/generation_options.h"
#include "gateway/api/replies.h"
#include "gateway/text/banned_text.h"
#include "gateway/text/text_stream.h"
#include "gateway/upstream/worker_client.h"
#include "gateway/upstream/worker_pool.h"

namespace behemoth::gateway {

struct GenerationPlan {
  std::string model;
  GenerateSpec spec;
  std::shared_ptr<const TokenTable> table;
  TextStreamOptions text;
  // Stop strings that spell a control token, and that token.
  std::vector<std::pair<std::string, uint32_t>> control_stops;
  std::vector<uint32_t> user_stop_ids;
  std::string structure_field;  // what the worker's errors about `spec.structure` are about
  bool wants_logprobs = false;
  std::shared_ptr<const BannedSet> banned;  // null = none
  uint32_t room_tokens = 0;                 // a sequence's most
  std::optional<uint32_t> thinking_budget;  // tokens; then end_thinking_ids, once per sequence
  std::vector<uint32_t> end_thinking_ids;   // what closes the block
  // The answer behind a thought is a call: text.tool_calls_id is made to come there, once.
  bool calls_after_thinking = false;
};

// Text and tokens of one sequence that arrived together.
struct GenerationDelta {
  TextPieces text;
  std::vector<uint32_t> ids;
  std::vector<TokenLogprobs> logprobs;
};

struct SequenceEnd {
  FinishReason reason = FinishReason::kStop;
  StopReason stop;
  std::optional<Warning> warning;
};

class GenerationSink {
 public:
  virtual ~GenerationSink() = default;
  virtual void OnProgress(const ProgressEvent& progress) = 0;
  virtual void OnDelta(uint32_t choice, GenerationDelta delta) = 0;
  virtual void OnEnd(uint32_t choice, const SequenceEnd& end) = 0;
  virtual void OnPromptLogprobs(std::vector<std::optional<TokenLogprobs>> logprobs) = 0;
  virtual void OnGenerationDone(absl::Status status) = 0;
};

class Generation final : public GenerateObserver {
 public:
  static constexpr uint32_t kMaxRewindsAtToken = 64;
  static constexpr uint32_t kMaxRewinds = 512;

  // Choices are numbered from `first_choice`.
  Generation(GenerationPlan plan, uint32_t first_choice, GenerationSink* sink);

  void Start(WorkerPool& pool, Loop& loop);
  void Pause(bool paused) {
    if (call_) call_->Pause(paused);
  }
  void EndByControl() {
    if (call_) call_->EndByControl();
  }
  void EndThinking(const std::vector<uint32_t>& ids);

  // Summed over the sequences. `completion_tokens` counts what was given out.
  const Usage& usage() const { return usage_; }
  const Timings& timings() const { return timings_; }
  const GenerationPlan& plan() const { return plan_; }

  void OnEvent(WorkerEvent event) override;
  void OnDone(absl::Status status) override;

 private:
  struct Token {
    uint32_t id = 0;
    std::optional<IdLogprobs> logprobs;
  };
  struct Sequence {
    explicit Sequence(TextStream stream) : text(std::move(stream)) {}
    TextStream text;
    std::optional<BannedText> banned;
    std::deque<Token> held;  // those that `banned` holds
    uint32_t given = 0;      // tokens that went into `text`
    uint32_t thinking_tokens = 0, rewinds = 0;
    std::map<size_t, uint32_t> rewinds_at;  // by token
    SequenceEnd end;
    bool budget_spent = false, calls_forced = false, ended = false;
    bool rewinding = false;  // what comes before the worker's word of it is void
  };

  void OnTokens(const TokensEvent& event);
  void OnFinish(const FinishEvent& event);
  void OnPromptLogprobs(const TokensEvent& event);
  // True: the sequence is over, its `end` says how.
  bool Take(uint32_t index, Token token, GenerationDelta& delta);
  bool GiveSure(uint32_t index, GenerationDelta& delta);
  bool TakeBack(uint32_t index, const BannedText::Match& match, GenerationDelta& delta);
  bool Give(Sequence& sequence, const Token& token, GenerationDelta& delta);
  void Rewind(uint32_t index, RewindSpec rewind);
  bool ForceWhatComes(uint32_t index);
  SequenceEnd TextStop(const Sequence& sequence) const;
  void SettleCalls(Sequence& sequence) const;
  void End(uint32_t index);
  TokenLogprobs Scored(uint32_t id, const IdLogprobs& logprobs) const;
  SequenceEnd EndOf(const FinishEvent& event) const;

  GenerationPlan plan_;
  const uint32_t first_choice_;
  GenerationSink* const sink_;
  std::vector<Sequence> sequences_;
  std::unique_ptr<GenerateCall> call_;
  Usage usage_;
  Timings timings_;
  uint32_t ended_ = 0;
  bool done_ = false;
};

}  // namespace behemoth::gateway
