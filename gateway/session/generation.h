// One prompt at one worker: its n sequences, from events of ids to text, stops and ends.
//
// Life: constructed -> Start -> sink calls -> OnGenerationDone, once; destroying it cancels. Loop
// thread only. Knows no JSON and no HTTP.
// A text stop ends its sequence here and now; when all have ended, the worker's stream is
// cancelled.
#pragma once

#include <absl/status/status.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gateway/api/replies.h"
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
  std::optional<uint32_t> thinking_budget;  // tokens
  std::vector<uint32_t> end_thinking_ids;   // what closes the block
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
  // Before Start: after `tokens` of thinking, `ids` are forced. Once per sequence.
  void SetBudget(uint32_t tokens, std::vector<uint32_t> ids) {
    plan_.thinking_budget = tokens;
    plan_.end_thinking_ids = std::move(ids);
  }

  // Summed over the sequences. `completion_tokens` counts what was given out.
  const Usage& usage() const { return usage_; }
  const Timings& timings() const { return timings_; }
  const GenerationPlan& plan() const { return plan_; }

  void OnEvent(WorkerEvent event) override;
  void OnDone(absl::Status status) override;

 private:
  struct Sequence {
    explicit Sequence(TextStream stream) : text(std::move(stream)) {}
    TextStream text;
    uint32_t thinking_tokens = 0;
    bool budget_spent = false, ended = false;
  };

  void OnTokens(const TokensEvent& event);
  void OnFinish(const FinishEvent& event);
  bool TakeId(Sequence& sequence, uint32_t index, uint32_t id, GenerationDelta& delta);
  void End(uint32_t index, SequenceEnd end);
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
