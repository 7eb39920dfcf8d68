// A scheduler with a fake runner and a clock of its own, and a record of all that its requests
// were sent. Every event is held against what a sink may see: nothing after Close, one finish per
// sequence, one Close. breach() is the first thing that was wrong, the runner's included.
#pragma once

#include <absl/container/flat_hash_map.h>
#include <absl/status/status.h>
#include <absl/time/time.h>

#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tests/unit/worker/schedule/fake_runner.h"
#include "worker/schedule/scheduler.h"

namespace behemoth::worker {

// What one request was sent.
struct Heard {
  std::vector<std::vector<TokenId>> tokens;  // by sequence
  std::vector<std::vector<TokenLogprobs>> logprobs;
  std::vector<TokenLogprobs> prompt_logprobs;
  std::vector<std::optional<FinishEvent>> finishes;  // by sequence
  std::vector<ProgressEvent> progress;
  std::optional<absl::Status> closed;
};

class CountingObserver : public ScheduleObserver {
 public:
  void OnStep(const StepShape& shape, absl::Duration) override { last_step = shape; }
  void OnPrefixLookup(int32_t, int32_t cached) override { cached_tokens += cached; }
  void OnPreemption() override { ++preemptions; }
  void OnNonFinite() override { ++non_finite; }
  void OnFirstToken(absl::Duration) override { ++first_tokens; }
  void OnFinish(const FinishEvent&, absl::Duration) override { ++finishes; }
  void OnClose(const absl::Status&) override { ++closes; }

  StepShape last_step;
  int64_t cached_tokens = 0;
  int32_t preemptions = 0, non_finite = 0, first_tokens = 0, finishes = 0, closes = 0;
};

class SchedulerFixture {
 public:
  struct Options {
    int32_t blocks = 16;
    int32_t tokens_per_block = 2;
    int32_t context_tokens = 0;  // 0 = all blocks
    int32_t max_sequences = 8;
    int32_t max_step_tokens = 64;
    int32_t pipeline_depth = 1;
    int32_t token_multiple = 1;
    bool prefix_caching = true;
    absl::Duration itl_target = absl::ZeroDuration();
    absl::Duration progress_interval = absl::InfiniteDuration();
  };
  // A request in few words; the prompt is its own unless `prompt` is given.
  struct Ask {
    int32_t prompt_tokens = 3;
    std::vector<TokenId> prompt;
    int32_t max_new_tokens = 4;
    int32_t num_sequences = 1;
    std::vector<TokenId> stop_ids;
    int32_t min_tokens = 0;
    int32_t top_logprobs = -1;
    bool include_stop_id = false;
    bool prompt_logprobs = false;
    std::string salt;
    std::string key;
    int32_t priority = 0;
    absl::Time deadline = absl::InfiniteFuture();
  };

  explicit SchedulerFixture(const Options& options);

  // Returns the request's id.
  std::string Submit(const Ask& ask);
  void SubmitRequest(GenerationRequest request);

  // One half of a step each. Plan: false = nothing to do. The runner runs the plan at once, its
  // result waits for Commit; so up to pipeline_depth plans are out.
  bool Plan();
  void Commit();
  // Plans as far as the depth goes, commits the oldest. False = idle.
  bool Step();
  void RunUntilIdle();

  // Empties the scheduler's deliveries into the record.
  void Drain();

  const GenerationRequest& request(const std::string& id) const { return requests_.at(id); }
  const Heard& heard(const std::string& id) const { return heard_.at(id); }
  const std::vector<TokenId>& TokensOf(const std::string& id, int32_t sequence = 0) const;
  std::vector<TokenId> TokensWhenAlone(const std::string& id, int32_t sequence = 0) const;
  absl::Status StatusOf(const std::string& id) const;
  FinishEvent FinishOf(const std::string& id, int32_t sequence = 0) const;
  bool closed(const std::string& id) const { return heard(id).closed.has_value(); }

  Scheduler& scheduler() { return scheduler_; }
  const FakeRunner& runner() const { return runner_; }
  const StepPlan& last_plan() const { return last_plan_; }
  int32_t steps_out() const { return static_cast<int32_t>(results_.size()); }
  int32_t preemptions() const { return observer_.preemptions; }
  int32_t free_blocks() const { return scheduler_.load().free_blocks; }
  std::string breach() const { return breach_.empty() ? runner_.error() : breach_; }
  const CountingObserver& observer() const { return observer_; }

  absl::Time now = absl::FromUnixSeconds(1);
  absl::Duration step_time = absl::Milliseconds(10);

 private:
  void Hear(const std::string& id, TokenEvent event);
  void Expect(bool condition, std::string_view what, const std::string& id);

  CountingObserver observer_;
  Scheduler scheduler_;
  FakeRunner runner_;
  std::deque<StepResult> results_;
  std::deque<std::shared_ptr<const MaskGate>> runs_late_;  // of each result; null: no late masks
  StepPlan last_plan_;
  absl::flat_hash_map<std::string, GenerationRequest> requests_;
  absl::flat_hash_map<std::string, Heard> heard_;
  std::string breach_;
  int32_t submitted_ = 0;
};

// `count` ids that are some prompt, the same for the same seed; seeds share no prefix.
std::vector<TokenId> PromptOf(int32_t count, int32_t seed);

}  // namespace behemoth::worker
