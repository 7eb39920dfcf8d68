#include "gateway/upstream/worker_pool.h"

#include <absl/algorithm/container.h>
#include <absl/synchronization/mutex.h>

#include <tuple>
#include <utility>

#include "gateway/api/api_error.h"
#include "gateway/upstream/quarantine.h"
#include "proto/support/log.h"

namespace behemoth::gateway {

// One worker. Its watch lives on the pool's loop; what Pick reads is guarded by the pool's mutex.
class LeastLoadPool::Member final : public WorkerWatch,
                                    public std::enable_shared_from_this<Member> {
 public:
  Member(std::string address, std::shared_ptr<WorkerClient> client, Loop& loop, absl::Mutex& mutex,
         const WorkerPoolConfig& config, uint64_t& lives)
      : address(std::move(address)),
        client(std::move(client)),
        life(++lives),
        loop_(loop),
        mutex_(mutex),
        config_(config),
        lives_(lives) {}

  void Connect() {  // loop
    if (!timer_) timer_ = loop_.NewTimer();
    watch_ = client->Watch(this, loop_);
  }
  void Disconnect() {  // loop
    timer_.reset();
    watch_.reset();
  }

  void OnReport(WorkerReport fresh) override {
    absl::MutexLock lock(&mutex_);
    report = std::move(fresh);
    refusal_logged = false;
    load.state = report.state;
    heard = loop_.Now();
  }
  void OnLoad(WorkerLoad fresh) override {
    absl::MutexLock lock(&mutex_);
    if (fresh.state != load.state) {
      support::Log().info("worker address={} ready={}", support::Escaped(address),
                          fresh.state == WorkerState::kReady);
    }
    load = fresh;
    draining = fresh.state == WorkerState::kDraining;
    heard = loop_.Now();
    // A worker that has come back after its crash is used at once.
    if (std::exchange(lost, false)) {
      ejected_until = absl::InfinitePast();
      life = ++lives_;
    }
  }
  void OnLost(absl::Status status) override {
    {
      absl::MutexLock lock(&mutex_);
      if (!std::exchange(lost, true)) {
        support::Log().warn("worker lost address={} status=\"{}\"", support::Escaped(address),
                            support::Escaped(status.ToString()));
      }
      load = {};
    }
    watch_.reset();
    timer_->Start(config_.reconnect, [this] { Connect(); });
  }

  const std::string address;
  const std::shared_ptr<WorkerClient> client;
  // Guarded by the pool's mutex.
  WorkerReport report;
  WorkerLoad load;
  absl::Time heard = absl::InfinitePast();
  absl::Time ejected_until = absl::InfinitePast();
  uint32_t in_flight = 0;
  uint64_t life;  // of the process behind the address: another one after each loss
  bool lost = false, leaving = false, draining = false, refusal_logged = false;

 private:
  Loop& loop_;
  absl::Mutex& mutex_;
  const WorkerPoolConfig& config_;
  uint64_t& lives_;
  std::unique_ptr<Timer> timer_;
  std::shared_ptr<void> watch_;
};

class LeastLoadPool::Members : public std::enable_shared_from_this<Members> {
 public:
  Members(const WorkerPoolConfig& config, WorkerClientFactory factory, Loop& loop)
      : config_(config), factory_(std::move(factory)), loop_(loop) {}

  void Set(std::vector<std::string> addresses) {
    absl::MutexLock lock(&mutex_);
    for (auto& member : members_)
      member->leaving = !absl::c_linear_search(addresses, member->address);
    for (const std::string& address : addresses) {
      if (absl::c_any_of(members_, [&](const auto& m) { return m->address == address; })) continue;
      auto client = factory_(address);
      if (!client.ok()) {
        support::Log().error("worker address={} status=\"{}\"", support::Escaped(address),
                             support::Escaped(client.status().ToString()));
        continue;
      }
      members_.push_back(
          std::make_shared<Member>(address, *std::move(client), loop_, mutex_, config_, lives_));
      loop_.Post([member = members_.back()] { member->Connect(); });
    }
    Sweep();
  }

  void SetTokenizerFingerprint(std::string fingerprint) {
    absl::MutexLock lock(&mutex_);
    tokenizer_fingerprint_ = std::move(fingerprint);
  }

  // A worker as it is now; `member` is null if none can take the request.
  struct Place {
    std::shared_ptr<Member> member;
    uint64_t life = 0;
  };

  Place Pick(const std::string& model, const std::vector<const Member*>& tried) {
    absl::MutexLock lock(&mutex_);
    std::shared_ptr<Member> best;
    for (const auto& member : members_) {
      if (!Usable(*member) || absl::c_linear_search(tried, member.get()) ||
          !absl::c_linear_search(member->report.served_names, model)) {
        continue;
      }
      if (!best || Cost(*member) < Cost(*best)) best = member;
    }
    if (!best) return {};
    ++best->in_flight;
    return {best, best->life};
  }

  bool Quarantined(uint64_t content) {
    absl::MutexLock lock(&mutex_);
    return quarantine_.Holds(content, loop_.Now());
  }

  // The worker went while it held the request. One that has said that it goes is no loss.
  void OnLoss(uint64_t content, const Place& place) {
    absl::MutexLock lock(&mutex_);
    if (place.member->draining) return;
    quarantine_.OnLoss(content, place.life, loop_.Now());
    if (!quarantine_.Holds(content, loop_.Now())) return;
    support::Log().error("request quarantined: it was with {} workers in a row when they were lost",
                         Quarantine::kLosses);
  }

  void OnServed(uint64_t content) {
    absl::MutexLock lock(&mutex_);
    quarantine_.OnServed(content);
  }

  void Release(Member& member, bool failed) {
    absl::MutexLock lock(&mutex_);
    --member.in_flight;
    if (failed) member.ejected_until = loop_.Now() + config_.ejection;
    Sweep();
  }

  PoolView View() {
    absl::MutexLock lock(&mutex_);
    PoolView view;
    for (const auto& member : members_) {
      if (member->leaving) continue;
      ++view.workers;
      AddModels(member->report, view);
      if (Usable(*member)) {
        ++view.usable;
        view.running_sequences += member->load.running_sequences;
        view.waiting_requests += member->load.waiting_requests;
        view.kv_use += member->load.kv_use;
      } else if (!SpeaksOurIds(*member)) {
        view.other_tokenizer = true;
        if (!std::exchange(member->refusal_logged, true)) {
          support::Log().error("worker refused address={} reason=other_tokenizer fingerprint={}",
                               support::Escaped(member->address),
                               support::Escaped(member->report.tokenizer_fingerprint));
        }
      } else if (!member->lost) {
        view.best_state = Silent(*member) ? WorkerState::kUnknown : member->load.state;
        view.load_percent = std::max(view.load_percent, member->report.load_percent);
        view.eta = member->report.eta;
      }
    }
    if (view.usable > 0) {
      view.kv_use /= view.usable;
      view.best_state = WorkerState::kReady;
      view.load_percent = 100;
    }
    return view;
  }

 private:
  bool Usable(const Member& member) const {
    return !member.leaving && !member.lost && member.load.state == WorkerState::kReady &&
           !Silent(member) && loop_.Now() >= member.ejected_until && SpeaksOurIds(member);
  }

  // Who does not know, on either side, is believed.
  bool SpeaksOurIds(const Member& member) const {
    const std::string& its = member.report.tokenizer_fingerprint;
    return its.empty() || tokenizer_fingerprint_.empty() || its == tokenizer_fingerprint_;
  }

  bool Silent(const Member& member) const { return loop_.Now() - member.heard >= config_.silence; }

  // Reports are half a second old, so what we sent since then counts by our own books.
  static std::tuple<uint32_t, double> Cost(const Member& member) {
    return {
        std::max(member.in_flight, member.load.running_sequences + member.load.waiting_requests),
        member.load.kv_use};
  }

  static void AddModels(const WorkerReport& report, PoolView& view) {
    for (const std::string& name : report.served_names) {
      if (absl::c_any_of(view.models, [&](const auto& m) { return m.name == name; })) continue;
      view.models.push_back({.name = name,
                             .root = report.served_names.front(),
                             .context_tokens = report.context_tokens,
                             .weights_fingerprint = report.weights_fingerprint,
                             .build = report.build,
                             .eos_ids = report.eos_ids,
                             .defaults = report.defaults});
    }
  }

  void Sweep() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    std::erase_if(members_, [this](const std::shared_ptr<Member>& member) {
      if (!member->leaving || member->in_flight > 0) return false;
      loop_.Post([member] { member->Disconnect(); });
      return true;
    });
  }

  const WorkerPoolConfig config_;
  const WorkerClientFactory factory_;
  Loop& loop_;
  absl::Mutex mutex_;
  std::vector<std::shared_ptr<Member>> members_ ABSL_GUARDED_BY(mutex_);
  std::string tokenizer_fingerprint_ ABSL_GUARDED_BY(mutex_);
  Quarantine quarantine_ ABSL_GUARDED_BY(mutex_);
  uint64_t lives_ ABSL_GUARDED_BY(mutex_) = 0;
};

namespace {

// One request on its way through the pool: the worker's stream, and the right to another one.
class PooledCall final : public GenerateCall, public GenerateObserver {
 public:
  PooledCall(std::shared_ptr<LeastLoadPool::Members> members, std::string model, GenerateSpec spec,
             GenerateObserver* observer, Loop& loop)
      : members_(std::move(members)),
        model_(std::move(model)),
        content_(spec.content_hash),
        spec_(std::move(spec)),
        observer_(observer),
        loop_(loop),
        timer_(loop.NewTimer()) {
    Try(absl::UnavailableError("No worker is ready."));
  }
  ~PooledCall() override { Cancel(); }

  void Cancel() override {
    timer_->Cancel();
    observer_ = nullptr;
    if (place_.member && delivered_) members_->OnServed(content_);
    Leave(false);
  }
  void Pause(bool paused) override {
    if (call_) call_->Pause(paused);
  }
  void EndByControl() override {
    if (call_) call_->EndByControl();
  }
  void ForceIds(uint32_t sequence, std::vector<uint32_t> ids) override {
    if (call_) call_->ForceIds(sequence, std::move(ids));
  }
  void Rewind(RewindSpec rewind) override {
    if (call_) call_->Rewind(std::move(rewind));
  }

  void OnEvent(WorkerEvent event) override {
    taken_ = true;
    if (!std::holds_alternative<ProgressEvent>(event) && !std::exchange(delivered_, true)) {
      spec_ = {};  // nothing will be sent again
    }
    observer_->OnEvent(std::move(event));
  }

  void OnDone(absl::Status status) override {
    // We hear nothing of what we cancel: this is a worker that stopped before the request did.
    const bool unavailable = absl::IsUnavailable(status) || absl::IsCancelled(status);
    if (unavailable && taken_) {
      members_->OnLoss(content_, place_);
    } else if (status.ok()) {
      members_->OnServed(content_);
    }
    Leave(unavailable);
    // gRPC's own words name addresses; a client of ours need not know them.
    if (unavailable) {
      status = absl::UnavailableError(delivered_ ? "The worker was lost."
                                                 : "No worker can take the request now.");
    }
    if (!delivered_ && (unavailable || absl::IsResourceExhausted(status))) {
      // The stream is still on the stack: its object goes when the next one is made.
      timer_->Start(absl::ZeroDuration(), [this, status = std::move(status)] { Try(status); });
      return;
    }
    Finish(std::move(status));
  }

 private:
  void Try(absl::Status otherwise) {
    if (members_->Quarantined(content_)) {
      otherwise = WithCodeName(absl::InternalError("workers were lost with this request"),
                               "request_quarantined");
    } else {
      place_ = members_->Pick(model_, tried_);
    }
    if (!place_.member) {
      timer_->Start(absl::ZeroDuration(),
                    [this, status = std::move(otherwise)] { Finish(status); });
      return;
    }
    taken_ = false;
    tried_.push_back(place_.member.get());
    call_ = place_.member->client->Generate(spec_, this, loop_);
  }

  void Leave(bool failed) {
    if (!observer_ && call_) call_->Cancel();
    if (auto member = std::exchange(place_, {}).member) members_->Release(*member, failed);
  }

  void Finish(absl::Status status) {
    if (auto* observer = std::exchange(observer_, nullptr)) observer->OnDone(std::move(status));
  }

  std::shared_ptr<LeastLoadPool::Members> members_;
  const std::string model_;
  const uint64_t content_;
  GenerateSpec spec_;
  GenerateObserver* observer_;
  Loop& loop_;
  std::unique_ptr<Timer> timer_;
  std::unique_ptr<GenerateCall> call_;
  LeastLoadPool::Members::Place place_;
  std::vector<const LeastLoadPool::Member*> tried_;
  bool taken_ = false;      // the worker of this try has said something
  bool delivered_ = false;  // and the observer has heard a token or a finish
};

}  // namespace

LeastLoadPool::LeastLoadPool(const WorkerPoolConfig& config, WorkerClientFactory factory,
                             Loop& loop)
    : members_(std::make_shared<Members>(config, std::move(factory), loop)) {}

LeastLoadPool::~LeastLoadPool() = default;

void LeastLoadPool::SetAddresses(std::vector<std::string> addresses) {
  members_->Set(std::move(addresses));
}

void LeastLoadPool::SetTokenizerFingerprint(std::string fingerprint) {
  members_->SetTokenizerFingerprint(std::move(fingerprint));
}

PoolView LeastLoadPool::View() const { return members_->View(); }

std::unique_ptr<GenerateCall> LeastLoadPool::Generate(const std::string& model, GenerateSpec spec,
                                                      GenerateObserver* observer, Loop& loop) {
  return std::make_unique<PooledCall>(members_, model, std::move(spec), observer, loop);
}

}  // namespace behemoth::gateway
