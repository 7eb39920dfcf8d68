#include "worker/engine/engine.h"

#include <absl/time/clock.h>

#include <algorithm>
#include <utility>

namespace behemoth::worker {
namespace {

template <typename... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};
template <typename... Cases>
Overloaded(Cases...) -> Overloaded<Cases...>;

}  // namespace

SchedulerConfig ConfigFor(const RunnerLimits& limits) {
  return {.context_tokens = limits.context_tokens,
          .blocks = limits.blocks,
          .tokens_per_block = limits.tokens_per_block,
          .max_sequences = limits.max_sequences,
          .max_step_tokens = limits.max_step_tokens,
          .pipeline_depth = limits.pipeline_depth,
          .token_multiple = limits.token_multiple};
}

Engine::Engine(const SchedulerConfig& config, const MailboxLimits& limits, ModelRunner* runner,
               ScheduleObserver* observer, EngineHooks hooks)
    : pipeline_depth_(config.pipeline_depth),
      runner_(runner),
      hooks_(std::move(hooks)),
      mailbox_(limits),
      last_beat_ns_(absl::ToUnixNanos(absl::Now())),
      load_{.free_blocks = config.blocks, .blocks = config.blocks},
      scheduler_(config, observer) {}

Engine::~Engine() { Stop(); }

// ---- Any thread ---------------------------------------------------------------------------------

void Engine::Start() {
  thread_ = std::thread([this] { Run(); });
}

absl::StatusOr<RequestSerial> Engine::Submit(GenerationRequest request) {
  return mailbox_.Submit(std::move(request));
}

void Engine::Abort(std::string request_id, RequestSerial serial, absl::Status why) {
  mailbox_.Post(AbortRequest{std::move(request_id), serial, std::move(why)}).IgnoreError();
}

absl::Status Engine::Cancel(std::string request_id, ControlDone done) {
  return mailbox_.Post(CancelRequest{std::move(request_id), std::move(done)});
}

absl::Status Engine::ForceIds(std::string request_id, int32_t sequence, std::vector<TokenId> ids,
                              ControlDone done) {
  return mailbox_.Post(
      worker::ForceIds{std::move(request_id), sequence, std::move(ids), std::move(done)});
}

absl::Status Engine::ExtendMaxTokens(std::string request_id, int32_t additional_tokens,
                                     ControlDone done) {
  return mailbox_.Post(
      worker::ExtendMaxTokens{std::move(request_id), additional_tokens, std::move(done)});
}

absl::Status Engine::Rewind(std::string request_id, worker::Rewind rewind, ControlDone done) {
  return mailbox_.Post(RewindRequest{std::move(request_id), std::move(rewind), std::move(done)});
}

LoadSnapshot Engine::load() const {
  absl::MutexLock lock(&load_mutex_);
  return load_;
}

absl::Time Engine::last_beat() const {
  return absl::FromUnixNanos(last_beat_ns_.load(std::memory_order_relaxed));
}

bool Engine::Drain(absl::Time deadline) {
  mailbox_.Close(absl::UnavailableError("draining"));
  return mailbox_.AwaitEmpty(deadline);
}

void Engine::Stop() {
  mailbox_.Close(absl::UnavailableError("stopping"));
  mailbox_.Stop();
  if (thread_.joinable()) thread_.join();
}

// ---- Engine thread ------------------------------------------------------------------------------

void Engine::Run() {
  absl::Time until = absl::InfinitePast();
  while (true) {
    if (!mailbox_.Take(until, &mail_)) return End(absl::UnavailableError("the worker has stopped"));
    const absl::Time now = absl::Now();
    Beat(now);
    Apply(now);
    const absl::StatusOr<absl::Time> next = Advance();
    if (!next.ok()) {
      End(absl::UnavailableError("the worker's device has failed"));
      return hooks_.on_failure(next.status());
    }
    until = *next;
  }
}

// One turn: what the last one and the mail brought is pushed, the step in flight gets its late
// masks, as many steps as the pipeline holds go out, the oldest comes back. Returns until when only
// mail is waited for: the past, a mask's time, or if nothing runs a deadline or the next beat.
// PlanStep frees what a delivery points at, so nothing is left to deliver before it.
absl::StatusOr<absl::Time> Engine::Advance() {
  Publish();
  const absl::Time masks = scheduler_.masks_due();
  if (masks > absl::Now()) return std::min(scheduler_.next_deadline(), masks);
  scheduler_.OpenMasks();
  while (steps_in_flight_ < pipeline_depth_) {
    const StepPlan& plan = scheduler_.PlanStep(absl::Now());
    const bool empty = plan.rows.empty();
    if (!empty) {
      if (absl::Status submitted = runner_->Submit(plan); !submitted.ok()) return submitted;
      ++steps_in_flight_;
    }
    if (!scheduler_.deliveries().empty()) Publish();
    if (empty) break;
  }
  if (steps_in_flight_ == 0) return std::min(scheduler_.next_deadline(), absl::Now() + kIdleBeat);
  const absl::StatusOr<StepResult> result = runner_->Await();
  if (!result.ok()) return result.status();
  --steps_in_flight_;
  const absl::Time now = absl::Now();
  Beat(now);
  scheduler_.Commit(*result, now);
  return absl::InfinitePast();
}

void Engine::Apply(absl::Time now) {
  const Overloaded apply{
      [&](GenerationRequest& m) { scheduler_.Submit(std::move(m), now); },
      [&](AbortRequest& m) {
        // NOT_FOUND: it ended earlier in this batch.
        if (mailbox_.IsInFlight(m.request_id, m.serial)) {
          scheduler_.Abort(m.request_id, m.why).IgnoreError();
        }
      },
      [&](CancelRequest& m) { m.done(scheduler_.Cancel(m.request_id, now)); },
      [&](worker::ForceIds& m) {
        m.done(scheduler_.ForceIds(m.request_id, m.sequence, std::move(m.ids), now));
      },
      [&](worker::ExtendMaxTokens& m) {
        m.done(scheduler_.ExtendMaxTokens(m.request_id, m.additional_tokens));
      },
      [&](RewindRequest& m) { m.done(scheduler_.Rewind(m.request_id, std::move(m.rewind), now)); },
  };
  for (Mail& mail : mail_) std::visit(apply, mail);
  mail_.clear();
}

void Engine::Publish() {
  std::vector<Delivery>& deliveries = scheduler_.deliveries();
  // By index: an abort appends its own last call.
  for (size_t i = 0; i < deliveries.size(); ++i) {
    Request* const request = deliveries[i].request;
    auto* event = std::get_if<TokenEvent>(&deliveries[i].what);
    if (event == nullptr) {
      ended_ids_.push_back(request->spec.request_id);
    } else if (!request->spec.sink->Push(std::move(*event))) {
      scheduler_.Abort(request, absl::ResourceExhaustedError("the reader is too slow"));
    }
  }
  // Before the caller hears of the end, so that its id and its place are free by then.
  mailbox_.Release(scheduler_.TakeDequeued(), ended_ids_);
  ended_ids_.clear();
  for (const Delivery& delivery : deliveries) {
    if (const auto* status = std::get_if<absl::Status>(&delivery.what)) {
      delivery.request->spec.sink->Close(*status);
    }
  }
  deliveries.clear();
  const LoadSnapshot load = scheduler_.load();
  {
    absl::MutexLock lock(&load_mutex_);
    load_ = load;
  }
  hooks_.on_publish(load);
}

void Engine::Beat(absl::Time now) {
  last_beat_ns_.store(absl::ToUnixNanos(now), std::memory_order_relaxed);
}

// Whatever is still in the mailbox is let in, to be failed with the rest: no sink is forgotten.
void Engine::End(const absl::Status& why) {
  mailbox_.Close(why);
  Apply(absl::Now());  // what came with the stop
  mailbox_.Take(absl::InfinitePast(), &mail_);
  Apply(absl::Now());
  scheduler_.AbortAll(why);
  scheduler_.OpenMasks();  // no step waits for what never comes
  Publish();
}

}  // namespace behemoth::worker
