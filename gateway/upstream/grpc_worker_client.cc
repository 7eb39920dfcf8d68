#include "gateway/upstream/grpc_worker_client.h"

#include <absl/synchronization/mutex.h>
#include <absl/time/clock.h>
#include <grpcpp/grpcpp.h>

#include <deque>
#include <utility>
#include <vector>

#include "behemoth/worker/v1/worker.grpc.pb.h"
#include "gateway/upstream/channel.h"
#include "gateway/upstream/open_calls.h"
#include "gateway/upstream/worker_messages.h"
#include "proto/support/status_convert.h"

namespace behemoth::gateway {
namespace {

namespace pb = worker::v1;
using Stub = pb::WorkerService::Stub;

// Coalesces bursts, and bounds what a loop that is behind can pile up.
constexpr size_t kReadAheadEvents = 64;
constexpr absl::Duration kUnaryTimeout = absl::Seconds(3);
constexpr absl::Duration kVocabularyTimeout = absl::Seconds(10);  // megabytes, and sorted there

// A server stream whose messages are handed to a loop. Keeps itself alive until gRPC's OnDone.
// `Message` events are queued under the mutex and drained by one posted task at a time.
template <typename Message>
class StreamReader : public grpc::ClientReadReactor<Message>,
                     public std::enable_shared_from_this<StreamReader<Message>> {
 public:
  using Deliver = absl::AnyInvocable<void(const Message&)>;
  using Ended = absl::AnyInvocable<void(absl::Status)>;

  StreamReader(std::shared_ptr<OpenCalls> calls, Loop& loop, Deliver deliver, Ended ended)
      : calls_(std::move(calls)),
        loop_(loop),
        deliver_(std::move(deliver)),
        ended_(std::move(ended)) {}

  grpc::ClientContext& context() { return context_; }

  void Begin() {
    self_ = this->shared_from_this();
    call_key_ = calls_->Add([self = self_] { self->Abort(); });
    // The hold lets the loop's thread start a read while no operation is pending.
    this->AddHold();
    this->StartRead(&incoming_);
    this->StartCall();
  }

  // Loop thread.
  void Cancel() {
    if (!std::exchange(silent_, true)) Abort();
  }

  void Pause(bool paused) {
    paused_ = paused;
    if (!paused) Drain();
  }

  // Any thread. Ends the stream with an error of our own.
  void Fail(absl::Status status) {
    loop_.Post([self = this->shared_from_this(), status = std::move(status)]() mutable {
      if (std::exchange(self->silent_, true)) return;
      self->Abort();
      self->ended_(std::move(status));
    });
  }

 private:
  // Any thread.
  void Abort() {
    bool release = false;
    {
      absl::MutexLock lock(&mutex_);
      release = std::exchange(held_, false);
    }
    context_.TryCancel();
    if (release) this->RemoveHold();
  }

  void OnReadDone(bool ok) override {
    bool wake = false, release = false;
    {
      absl::MutexLock lock(&mutex_);
      reading_ = false;
      if (ok) {
        ready_.push_back(std::move(incoming_));
        incoming_.Clear();
        reading_ = ready_.size() < kReadAheadEvents;
        wake = !std::exchange(drain_posted_, true);
      } else {
        release = std::exchange(held_, false);
      }
      if (reading_) this->StartRead(&incoming_);
    }
    if (wake) {
      loop_.Post([self = this->shared_from_this()] {
        {
          absl::MutexLock lock(&self->mutex_);
          self->drain_posted_ = false;
        }
        self->Drain();
      });
    }
    if (release) this->RemoveHold();
  }

  void OnDone(const grpc::Status& status) override {
    loop_.Post([self = std::move(self_), status = support::FromServer(status)]() mutable {
      self->status_ = std::move(status);
      self->Drain();
    });
    // The posted task may have been the last owner but for the entry that goes here.
    const auto calls = calls_;
    calls->Remove(call_key_);
  }

  // Loop thread. The observer may pause, resume or cancel from inside its own call.
  void Drain() {
    if (std::exchange(draining_, true)) return;
    // What a paused reader leaves in `ready_` is what stops gRPC from reading on.
    while (!paused_ && !silent_) {
      if (backlog_.empty()) Take();
      if (backlog_.empty()) break;
      const Message message = std::move(backlog_.front());
      backlog_.pop_front();
      deliver_(message);
    }
    draining_ = false;
    if (paused_ || silent_ || !status_) return;
    silent_ = true;
    ended_(*std::move(status_));
  }

  void Take() {
    absl::MutexLock lock(&mutex_);
    for (auto& message : ready_) backlog_.push_back(std::move(message));
    ready_.clear();
    if (!reading_ && held_) {
      reading_ = true;
      this->StartRead(&incoming_);
    }
  }

  const std::shared_ptr<OpenCalls> calls_;
  Loop& loop_;
  grpc::ClientContext context_;
  uint64_t call_key_ = 0;
  std::shared_ptr<StreamReader> self_;
  Message incoming_;
  absl::Mutex mutex_;
  std::vector<Message> ready_ ABSL_GUARDED_BY(mutex_);
  bool reading_ ABSL_GUARDED_BY(mutex_) = true;
  bool held_ ABSL_GUARDED_BY(mutex_) = true;
  bool drain_posted_ ABSL_GUARDED_BY(mutex_) = false;
  // Loop thread only.
  Deliver deliver_;
  Ended ended_;
  std::deque<Message> backlog_;
  std::optional<absl::Status> status_;
  bool paused_ = false, silent_ = false, draining_ = false;
};

// What the calls of one client share; outlives the client, until its last call has ended.
struct Door {
  explicit Door(const std::shared_ptr<grpc::Channel>& channel)
      : stub(pb::WorkerService::NewStub(channel)) {}
  std::unique_ptr<Stub> stub;
  std::shared_ptr<OpenCalls> calls = std::make_shared<OpenCalls>();
};

// A unary call that keeps itself alive; the answer is posted, or dropped without a callback.
template <typename Request, typename Reply>
struct UnaryCall {
  grpc::ClientContext context;
  Request request;
  Reply reply;
};

template <typename Call>
uint64_t Track(OpenCalls& calls, const std::shared_ptr<Call>& call) {
  return calls.Add([call] { call->context.TryCancel(); });
}

class Call final : public GenerateCall {
 public:
  Call(std::shared_ptr<Door> door, const GenerateSpec& spec, GenerateObserver* observer, Loop& loop)
      : door_(std::move(door)),
        loop_(loop),
        observer_(observer),
        deadline_(spec.deadline),
        request_(ToProto(spec)) {
    if (spec.structure) vocabulary_ = spec.structure->vocabulary;
    Open();
  }
  ~Call() override { Cancel(); }

  void Cancel() override {
    alive_.reset();
    reader_->Cancel();
  }
  void Pause(bool paused) override { reader_->Pause(paused); }
  void EndByControl() override {
    pb::ControlRequest request;
    request.mutable_cancel();
    Control(std::move(request));
  }
  void ForceIds(uint32_t sequence, std::vector<uint32_t> ids) override {
    pb::ControlRequest request;
    request.mutable_force_ids()->set_sequence(sequence);
    request.mutable_force_ids()->mutable_ids()->Add(ids.begin(), ids.end());
    Control(std::move(request));
  }
  void Rewind(RewindSpec rewind) override {
    pb::ControlRequest request;
    pb::ControlRequest::Rewind& out = *request.mutable_rewind();
    out.set_sequence(rewind.sequence);
    out.set_keep_tokens(rewind.keep_tokens);
    out.mutable_banned_ids()->Add(rewind.banned_ids.begin(), rewind.banned_ids.end());
    out.mutable_force_ids()->Add(rewind.force_ids.begin(), rewind.force_ids.end());
    // Nothing that comes is of use before the rewind: one that was refused is the end.
    Control(std::move(request), [reader = reader_](const grpc::Status& status) {
      if (!status.ok()) reader->Fail(support::FromServer(status));
    });
  }

 private:
  void Open() {
    reader_ = std::make_shared<StreamReader<pb::GenerateResponse>>(
        door_->calls, loop_,
        [observer = observer_](const pb::GenerateResponse& response) {
          if (auto event = FromProto(response)) observer->OnEvent(*std::move(event));
        },
        [this](absl::Status status) { OnEnded(std::move(status)); });
    if (deadline_ != absl::InfiniteFuture()) {
      reader_->context().set_deadline(absl::ToChronoTime(deadline_));
    }
    door_->stub->async()->Generate(&reader_->context(), &request_, reader_.get());
    reader_->Begin();
    // Serialised by now; an idle stream need not keep it, unless it may be opened once more.
    if (vocabulary_ == nullptr) request_.clear_prompt_ids();
  }

  void OnEnded(absl::Status status) {
    if (!absl::IsFailedPrecondition(status) || vocabulary_ == nullptr) {
      return observer_->OnDone(std::move(status));
    }
    SetVocabulary(*std::exchange(vocabulary_, nullptr));
  }

  // Once in a call's life: a worker that has just started does not know the tokens' texts.
  void SetVocabulary(const TokenTable& table) {
    auto call = std::make_shared<UnaryCall<pb::SetVocabularyRequest, pb::SetVocabularyResponse>>();
    call->request = ToProto(table);
    call->context.set_deadline(absl::ToChronoTime(absl::Now() + kVocabularyTimeout));
    const uint64_t key = Track(*door_->calls, call);
    door_->stub->async()->SetVocabulary(
        &call->context, &call->request, &call->reply,
        [this, call, key, door = door_, alive = std::weak_ptr<bool>(alive_),
         loop = &loop_](const grpc::Status& got) {
          loop->Post([this, alive, status = support::FromServer(got)]() mutable {
            if (alive.expired()) return;
            if (status.ok()) return Open();
            observer_->OnDone(std::move(status));
          });
          door->calls->Remove(key);
        });
  }

  using Answered = std::function<void(const grpc::Status&)>;
  void Control(pb::ControlRequest request, Answered answered = [](const grpc::Status&) {}) {
    auto call = std::make_shared<UnaryCall<pb::ControlRequest, pb::ControlResponse>>();
    call->request = std::move(request);
    call->request.set_request_id(request_.request_id());
    call->context.set_deadline(absl::ToChronoTime(absl::Now() + kUnaryTimeout));
    const uint64_t key = Track(*door_->calls, call);
    door_->stub->async()->Control(
        &call->context, &call->request, &call->reply,
        [call, key, door = door_, answered = std::move(answered)](const grpc::Status& status) {
          answered(status);
          door->calls->Remove(key);
        });
  }

  std::shared_ptr<Door> door_;
  Loop& loop_;
  GenerateObserver* const observer_;
  const absl::Time deadline_;
  std::shared_ptr<const TokenTable> vocabulary_;            // null: no structure, or sent once
  std::shared_ptr<bool> alive_ = std::make_shared<bool>();  // until cancelled
  pb::GenerateRequest request_;
  std::shared_ptr<StreamReader<pb::GenerateResponse>> reader_;
};

// GetStatus first, then WatchLoad; GetStatus again at each change of state, and while loading, so
// that percent and names are fresh. Loop thread only but for construction by the same thread.
class GrpcWatch : public std::enable_shared_from_this<GrpcWatch> {
 public:
  GrpcWatch(std::shared_ptr<Door> door, WorkerWatch* watch, Loop& loop)
      : door_(std::move(door)), watch_(watch), loop_(loop) {}

  void Begin() {
    AskStatus();
    reader_ = std::make_shared<StreamReader<pb::WatchLoadResponse>>(
        door_->calls, loop_,
        [this](const pb::WatchLoadResponse& response) { OnLoad(FromProto(response)); },
        [this](absl::Status status) { watch_->OnLost(std::move(status)); });
    request_.mutable_interval()->set_nanos(500'000'000);
    door_->stub->async()->WatchLoad(&reader_->context(), &request_, reader_.get());
    reader_->Begin();
  }
  void End() {
    ended_ = true;
    if (reader_) reader_->Cancel();
  }

 private:
  void OnLoad(WorkerLoad load) {
    const bool settled = told_ && load.state == WorkerState::kReady && load.state == last_state_;
    last_state_ = load.state;
    watch_->OnLoad(load);
    if (!settled && !ended_) AskStatus();
  }

  void AskStatus() {
    if (std::exchange(asking_, true)) return;
    auto call = std::make_shared<UnaryCall<pb::GetStatusRequest, pb::GetStatusResponse>>();
    call->context.set_deadline(absl::ToChronoTime(absl::Now() + kUnaryTimeout));
    const uint64_t key = Track(*door_->calls, call);
    door_->stub->async()->GetStatus(
        &call->context, &call->request, &call->reply,
        [call, key, door = door_, weak = weak_from_this(), loop = &loop_](const grpc::Status& got) {
          loop->Post([weak, call, ok = got.ok()] {
            if (const auto self = weak.lock()) self->OnStatus(ok, call->reply);
          });
          door->calls->Remove(key);
        });
  }

  void OnStatus(bool ok, const pb::GetStatusResponse& reply) {
    asking_ = false;
    if (!ok || ended_) return;
    told_ = true;
    watch_->OnReport(FromProto(reply));
  }

  std::shared_ptr<Door> door_;
  WorkerWatch* const watch_;
  Loop& loop_;
  pb::WatchLoadRequest request_;
  std::shared_ptr<StreamReader<pb::WatchLoadResponse>> reader_;
  WorkerState last_state_ = WorkerState::kUnknown;
  bool asking_ = false, told_ = false, ended_ = false;
};

class GrpcWorkerClient final : public WorkerClient {
 public:
  explicit GrpcWorkerClient(const std::shared_ptr<grpc::Channel>& channel)
      : door_(std::make_shared<Door>(channel)) {}
  ~GrpcWorkerClient() override { door_->calls->CancelAndWait(); }

  std::unique_ptr<GenerateCall> Generate(GenerateSpec spec, GenerateObserver* observer,
                                         Loop& loop) override {
    return std::make_unique<Call>(door_, spec, observer, loop);
  }

  std::shared_ptr<void> Watch(WorkerWatch* watch, Loop& loop) override {
    auto grpc_watch = std::make_shared<GrpcWatch>(door_, watch, loop);
    grpc_watch->Begin();
    return std::shared_ptr<void>(nullptr, [grpc_watch](void*) { grpc_watch->End(); });
  }

 private:
  std::shared_ptr<Door> door_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<WorkerClient>> NewGrpcWorkerClient(
    const std::string& address, const support::ClientTlsConfig& tls, Channels& channels) {
  auto channel = channels.Make(address, tls);
  if (!channel.ok()) return channel.status();
  return std::make_unique<GrpcWorkerClient>(*channel);
}

}  // namespace behemoth::gateway
