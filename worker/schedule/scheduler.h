// Decides what every step computes: which sequences, which tokens, in which blocks.
//
// Life of a step: PlanStep -> (the runner runs it) -> Commit, in order; up to pipeline_depth plans
// are out at once. What the outside has to hear lies in deliveries() after every call.
// Blocks are taken and given back here and nowhere else. Time is an argument, never read.
// Engine thread only.
//
// Four files: scheduler.cc (requests come and go), scheduler_plan.cc (PlanStep),
// scheduler_commit.cc (Commit), scheduler_rewind.cc (Rewind).
#pragma once

#include <absl/container/flat_hash_map.h>
#include <absl/status/status.h>
#include <absl/time/time.h>

#include <memory>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "worker/cache/block_pool.h"
#include "worker/cache/prefix_cache.h"
#include "worker/schedule/chunk_size.h"
#include "worker/schedule/fair_queue.h"
#include "worker/schedule/generation.h"
#include "worker/schedule/observer.h"
#include "worker/schedule/sequence.h"
#include "worker/schedule/step_plan.h"

namespace behemoth::worker {

struct SchedulerConfig {
  int32_t context_tokens = 0;
  int32_t blocks = 0;  // at least what one context needs
  int32_t tokens_per_block = 0;
  int32_t max_sequences = 0;    // slots
  int32_t max_step_tokens = 0;  // >= max_sequences
  int32_t pipeline_depth = 1;   // 1 or 2
  int32_t token_multiple = 1;   // the runner's: prefill beside decodes fills whole multiples
  bool prefix_caching = true;
  absl::Duration itl_target = absl::ZeroDuration();  // zero = off
  absl::Duration progress_interval = absl::Seconds(2);
  uint64_t cache_secret = 0;
};

// One thing for one sink: an event, or the last call. `request` is good until the next PlanStep.
struct Delivery {
  Request* request = nullptr;
  std::variant<TokenEvent, absl::Status> what;
};

// Requests that have left the queue since it was last asked, by admission or by ending in it.
struct Dequeued {
  int32_t requests = 0;
  int64_t tokens = 0;
};

class Scheduler {
 public:
  // `observer` outlives the scheduler.
  Scheduler(const SchedulerConfig& config, ScheduleObserver* observer);
  ~Scheduler();

  // `request` is valid against the config (rpc/ sees to it) and its id is not in flight.
  void Submit(GenerationRequest request, absl::Time now);
  // Ends every sequence with FinishReason::kCancelled, then closes OK. NOT_FOUND.
  absl::Status Cancel(const std::string& request_id, absl::Time now);
  // Closes with `why`: the caller is gone. NOT_FOUND.
  absl::Status Abort(const std::string& request_id, const absl::Status& why);
  void Abort(Request* request, const absl::Status& why);
  void AbortAll(const absl::Status& why);
  // The sequence's next tokens, after those of the steps in flight; stop ids among them stop
  // nothing, and what goes beyond max_tokens is cut off: the sequence ends by length. They come
  // after the prompt's first token if the prompt is shared or its logprobs were asked for.
  // NOT_FOUND; INVALID_ARGUMENT: none, or beyond the context.
  absl::Status ForceIds(const std::string& request_id, int32_t sequence, std::vector<TokenId> ids,
                        absl::Time now);
  absl::Status ExtendMaxTokens(const std::string& request_id, int32_t additional_tokens);
  // Takes tokens of a sequence back, finished or not; what steps in flight sample for it is void.
  // A RewoundEvent, then what comes now. The sequence is computed again like a preempted one: the
  // tokens and draws of a position are the same as without the rewind, but for what is banned.
  // NOT_FOUND; INVALID_ARGUMENT: not rewindable, fewer tokens, no token left, over kMaxBans.
  absl::Status Rewind(const std::string& request_id, worker::Rewind rewind, absl::Time now);
  static constexpr size_t kMaxBans = 1024;  // of a sequence
  // How long a rewindable request whose sequences have all finished stays for a rewind. It holds no
  // block and no slot.
  static constexpr absl::Duration kParkTime = absl::Seconds(30);

  // The next step; no rows = nothing to do before a commit or a new request. Good until its Commit.
  const StepPlan& PlanStep(absl::Time now);
  // Until when masks are waited for before OpenMasks and PlanStep; past: go on. The masks of the
  // one step in flight, or with none in flight those without which a sequence would sit the next
  // out.
  absl::Time masks_due() const;
  // Gives the step in flight its late masks. Who has none yet starts again from its last known
  // token, in a later step. Nothing to do if no step waits for masks.
  void OpenMasks();
  // A mask of 32,768 ids takes some tenths of a millisecond; who is later than this misses a step,
  // and the others wait no more for that one.
  static constexpr absl::Duration kMaskPatience = absl::Milliseconds(2);
  // The oldest plan's outcome.
  void Commit(const StepResult& result, absl::Time now);

  std::vector<Delivery>& deliveries() { return deliveries_; }
  Dequeued TakeDequeued() { return std::exchange(dequeued_, {}); }
  LoadSnapshot load() const;
  bool idle() const { return requests_.empty() && steps_in_flight_ == 0; }
  absl::Time next_deadline() const;
  const SchedulerConfig& config() const { return config_; }

  // Recounts the pool and compares it with the sequences' tables. For tests; O(everything).
  void CheckInvariants() const;

 private:
  struct PlannedRow {
    Sequence* sequence;
    uint32_t residence;
    int32_t position;
    int32_t end;
    bool prompt_logprobs;
  };
  struct PlannedStep {
    StepPlan plan;
    std::vector<PlannedRow> rows;
    std::vector<Sequence*> samples;
    absl::Time planned_at;
    ChunkSize::Step load;
  };

  // scheduler.cc
  Request* Find(const std::string& request_id);
  void Deliver(Request* request, TokenEvent event);
  void DeliverProgress(Request* request, int32_t queue_position, absl::Time now);
  void End(Sequence& sequence, SequenceState state);
  void EndAll(Request* request, SequenceState state);
  void Finish(Sequence& sequence, FinishReason reason, std::optional<TokenId> stop, absl::Time now);
  void Close(Request* request, const absl::Status& status);
  void Dequeue(Request* request);
  void Enqueue(Sequence& sequence);
  void LeaveQueue(Sequence& sequence);
  void ReleaseBlocks(Sequence& sequence);
  void ReleaseSlot(Sequence& sequence);
  void AppendForcedIfKnown(Sequence& sequence, absl::Time now);
  void AppendForced(Sequence& sequence, absl::Time now);
  void EmitTokens(Sequence& sequence, TokensEvent event, absl::Time now);
  void AdvanceForm(Sequence& sequence, TokenId token, absl::Time now);

  // scheduler_rewind.cc
  absl::Status CheckRewind(const Sequence& sequence, const worker::Rewind& rewind) const;
  void TakeBack(Sequence& sequence, int32_t keep_tokens, absl::Time now);
  void RestartForm(Sequence& sequence, absl::Time now);
  std::shared_ptr<const SamplingParams> SamplingOf(Sequence& sequence);
  void Park(Request* request, absl::Time now);
  void Unpark(Request* request);

  // scheduler_plan.cc
  void PurgeRetired();
  void ExpireDeadlines(absl::Time now);
  void SettleForms(absl::Time now);
  void ReportProgress(absl::Time now);
  bool WantsDecodeRow(const Sequence& sequence) const;
  int32_t DecodeTokens(const Sequence& sequence) const;
  void SecureRunningBlocks();
  bool SecureBlocks(Sequence& sequence, int32_t tokens);
  bool IsShared(BlockId block) const;
  Sequence* Victim();
  void Preempt(Sequence& victim);
  void Requeue(Sequence& sequence);
  void PlanDecodes(int32_t* budget);
  void PlanPrefills(int32_t budget, absl::Time now);
  bool Admit(Sequence& sequence, absl::Time now);
  bool TakeBlocks(Sequence& sequence);
  void TakeSlots(Sequence& sequence);
  void Bind(Sequence& sequence);
  void EmitRow(Sequence& sequence, int32_t tokens);
  void Fork(Sequence& leader, int32_t row);
  void EmitSample(Sequence& sequence, int32_t row, int32_t position);
  std::shared_ptr<const TokenMask> LateMask(Sequence& sequence);

  // scheduler_commit.cc
  void CacheFullBlocks(Sequence& sequence, int32_t computed);
  void KeepPromptLogprobs(Request* request, int32_t position, std::vector<TokenLogprobs> logprobs);
  void AcceptToken(Sequence& sequence, const SampleResult& sample, absl::Time now);

  const SchedulerConfig config_;
  ScheduleObserver* const observer_;
  BlockPool pool_;
  PrefixCache cache_;
  FairQueue queue_;
  ChunkSize chunk_size_;

  absl::flat_hash_map<std::string, std::unique_ptr<Request>> requests_;
  std::vector<std::unique_ptr<Request>> retired_;  // closed; rows may be in flight
  std::set<std::pair<absl::Time, Request*>> deadlines_;
  std::set<std::pair<absl::Time, Request*>> parked_;
  std::vector<Sequence*> running_;          // in order of admission
  std::vector<Sequence*> unsettled_forms_;  // whose masks are being computed
  std::vector<SlotId> free_slots_;

  std::vector<PlannedStep> steps_;  // a ring of pipeline_depth
  size_t next_step_ = 0;
  int32_t steps_in_flight_ = 0;
  PlannedStep* planning_ = nullptr;
  PlannedStep* masked_late_ = nullptr;  // in flight, its gate is closed
  StepNumber last_number_ = 0;
  uint64_t committed_ = 0;
  absl::Time committed_at_ = absl::InfinitePast();
  uint64_t arrivals_ = 0;
  absl::Time progress_checked_at_ = absl::InfinitePast();
  int64_t waiting_tokens_ = 0;
  Dequeued dequeued_;
  std::vector<Delivery> deliveries_;

  // Reused between steps.
  std::vector<Sequence*> scratch_;
  std::vector<BlockId> copy_sources_;  // held until the plan is complete
};

}  // namespace behemoth::worker
