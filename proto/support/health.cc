#include "proto/support/health.h"

#include <absl/base/thread_annotations.h>
#include <absl/synchronization/mutex.h>

#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "grpc/health/v1/health.grpc.pb.h"

namespace behemoth::support {
namespace {

using Request = grpc::health::v1::HealthCheckRequest;
using Response = grpc::health::v1::HealthCheckResponse;
using State = Response::ServingStatus;

constexpr size_t kMaxListed = 100;  // the protocol's own bound

// One Watch call. Its state meets two threads: whoever publishes, and gRPC's callbacks. At most one
// operation is under way; `busy_` is its token, and only the token's holder starts the next, so no
// lock is held while gRPC is called.
class Watcher : public grpc::ServerWriteReactor<Response> {
 public:
  Watcher(std::string service, std::function<void(Watcher*)> on_done)
      : service_(std::move(service)), on_done_(std::move(on_done)) {}

  const std::string& service() const { return service_; }

  // The newest state wins: a state that was never written is replaced. `last` ends the call after
  // it.
  void Publish(State state, bool last) {
    {
      absl::MutexLock lock(&mutex_);
      wanted_ = state;
      ending_ = ending_ || last;
      if (busy_) return;
      busy_ = true;
    }
    Advance();
  }

  void OnWriteDone(bool ok) override {
    if (!ok) Cancel();
    Advance();
  }

  void OnCancel() override {
    Cancel();
    {
      absl::MutexLock lock(&mutex_);
      if (busy_) return;
      busy_ = true;
    }
    Advance();
  }

  void OnDone() override { on_done_(this); }

 private:
  void Cancel() {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
  }

  // The token's holder only. Keeps the token for ever once the call is finished.
  void Advance() {
    enum { kRest, kWrite, kFinish } next = kRest;
    bool cancelled = false;
    {
      absl::MutexLock lock(&mutex_);
      cancelled = cancelled_;
      if (!cancelled && wanted_ != written_) {
        next = kWrite;
        written_ = wanted_;
        response_.set_status(written_);
      } else if (cancelled || ending_) {
        next = kFinish;
      } else {
        busy_ = false;
      }
    }
    if (next == kWrite) StartWrite(&response_);
    if (next == kFinish) {
      Finish(cancelled ? grpc::Status::CANCELLED
                       : grpc::Status(grpc::StatusCode::UNAVAILABLE, "shutting down"));
    }
  }

  const std::string service_;
  const std::function<void(Watcher*)> on_done_;
  Response response_;
  absl::Mutex mutex_;
  State wanted_ ABSL_GUARDED_BY(mutex_) = Response::UNKNOWN;
  State written_ ABSL_GUARDED_BY(mutex_) = Response::UNKNOWN;
  bool busy_ ABSL_GUARDED_BY(mutex_) = false;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace

class Health::Impl : public grpc::health::v1::Health::CallbackService {
 public:
  void Set(const std::string& service, bool serving) {
    const State state = serving ? Response::SERVING : Response::NOT_SERVING;
    std::vector<std::shared_ptr<Watcher>> watchers;
    {
      absl::MutexLock lock(&mutex_);
      if (shut_down_) return;
      states_[service] = state;
      for (const auto& [key, watcher] : watchers_) {
        if (watcher->service() == service) watchers.push_back(watcher);
      }
    }
    Announce(watchers);
  }

  void Shutdown() {
    std::vector<std::shared_ptr<Watcher>> watchers;
    {
      absl::MutexLock lock(&mutex_);
      shut_down_ = true;
      for (auto& [service, state] : states_) state = Response::NOT_SERVING;
      for (const auto& [key, watcher] : watchers_) watchers.push_back(watcher);
    }
    Announce(watchers);
  }

  grpc::ServerUnaryReactor* Check(grpc::CallbackServerContext* context, const Request* request,
                                  Response* response) override {
    auto* reactor = context->DefaultReactor();
    const State state = StateOf(request->service()).first;
    if (state == Response::SERVICE_UNKNOWN) {
      reactor->Finish({grpc::StatusCode::NOT_FOUND, "service: unknown"});
    } else {
      response->set_status(state);
      reactor->Finish(grpc::Status::OK);
    }
    return reactor;
  }

  grpc::ServerWriteReactor<Response>* Watch(grpc::CallbackServerContext*,
                                            const Request* request) override {
    auto watcher =
        std::make_shared<Watcher>(request->service(), [this](Watcher* done) { Forget(done); });
    {
      absl::MutexLock lock(&mutex_);
      watchers_.emplace(watcher.get(), watcher);
    }
    Announce({watcher});
    return watcher.get();
  }

  grpc::ServerUnaryReactor* List(grpc::CallbackServerContext* context,
                                 const grpc::health::v1::HealthListRequest*,
                                 grpc::health::v1::HealthListResponse* response) override {
    auto* reactor = context->DefaultReactor();
    size_t count = 0;
    {
      absl::MutexLock lock(&mutex_);
      count = states_.size();
      if (count <= kMaxListed) {
        for (const auto& [service, state] : states_) {
          (*response->mutable_statuses())[service].set_status(state);
        }
      }
    }
    reactor->Finish(count <= kMaxListed ? grpc::Status::OK
                                        : grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED,
                                                       "more than 100 services"));
    return reactor;
  }

 private:
  // {state, the process is going}
  std::pair<State, bool> StateOf(const std::string& service) {
    absl::MutexLock lock(&mutex_);
    const auto found = states_.find(service);
    return {found == states_.end() ? Response::SERVICE_UNKNOWN : found->second, shut_down_};
  }

  // `announcing_` orders read-then-publish, so that an older state never overtakes a newer one.
  // Watcher::Publish calls gRPC, which never calls back into us on the caller's stack.
  void Announce(const std::vector<std::shared_ptr<Watcher>>& watchers) {
    absl::MutexLock lock(&announcing_);
    for (const auto& watcher : watchers) {
      const auto [state, last] = StateOf(watcher->service());
      watcher->Publish(state, last);
    }
  }

  void Forget(Watcher* done) {
    absl::MutexLock lock(&mutex_);
    watchers_.erase(done);
  }

  absl::Mutex announcing_ ABSL_ACQUIRED_BEFORE(mutex_);
  absl::Mutex mutex_;
  bool shut_down_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<std::string, State> states_ ABSL_GUARDED_BY(mutex_);
  std::map<Watcher*, std::shared_ptr<Watcher>> watchers_ ABSL_GUARDED_BY(mutex_);
};

Health::Health() : impl_(std::make_unique<Impl>()) {}
Health::~Health() = default;
void Health::Set(const std::string& service, bool serving) { impl_->Set(service, serving); }
void Health::Shutdown() { impl_->Shutdown(); }
grpc::Service* Health::service() { return impl_.get(); }

}  // namespace behemoth::support
