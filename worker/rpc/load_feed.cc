#include "worker/rpc/load_feed.h"

#include <absl/time/clock.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

namespace behemoth::worker {

// One WatchLoad call. At most one operation is under way; `busy_` is its token, and only the
// token's holder starts the next, so no lock is held while gRPC is called.
class LoadFeed::Watcher : public grpc::ServerWriteReactor<v1::WatchLoadResponse> {
 public:
  Watcher(absl::Duration interval, std::function<void(Watcher*)> on_done)
      : interval_(interval), on_done_(std::move(on_done)) {}

  // Feed thread only.
  absl::Time due() const { return due_; }

  // `last` ends the call after this snapshot. Feed thread, or before the call begins.
  void Publish(v1::WatchLoadResponse snapshot, absl::Time now, bool last) {
    due_ = now + interval_;
    {
      absl::MutexLock lock(&mutex_);
      snapshot.set_steps_per_second(Rate(snapshot.steps(), now));
      next_ = std::move(snapshot);
      ending_ = ending_ || last;
      if (std::exchange(busy_, true)) return;
    }
    Advance();
  }

  void OnWriteDone(bool ok) override {
    if (!ok) SetCancelled();
    Advance();
  }

  void OnCancel() override {
    SetCancelled();
    {
      absl::MutexLock lock(&mutex_);
      if (std::exchange(busy_, true)) return;
    }
    Advance();
  }

  void OnDone() override { on_done_(this); }

 private:
  double Rate(uint64_t steps, absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const absl::Duration elapsed = now - std::exchange(counted_at_, now);
    const uint64_t before = std::exchange(counted_steps_, steps);
    if (elapsed <= absl::ZeroDuration() || elapsed == absl::InfiniteDuration()) return 0;
    return static_cast<double>(steps - before) / absl::ToDoubleSeconds(elapsed);
  }

  void SetCancelled() {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
  }

  // The token's holder only. Keeps the token for ever once the call is finished.
  void Advance() {
    bool cancelled = false, write = false;
    {
      absl::MutexLock lock(&mutex_);
      cancelled = cancelled_;
      write = !cancelled && next_.has_value();
      if (write) {
        response_ = *std::exchange(next_, std::nullopt);
      } else if (!cancelled && !ending_) {
        busy_ = false;
        return;
      }
    }
    if (write) return StartWrite(&response_);
    Finish(cancelled ? grpc::Status::CANCELLED
                     : grpc::Status(grpc::StatusCode::UNAVAILABLE, "the worker is going"));
  }

  const absl::Duration interval_;
  const std::function<void(Watcher*)> on_done_;
  absl::Time due_ = absl::InfinitePast();
  v1::WatchLoadResponse response_;
  absl::Mutex mutex_;
  std::optional<v1::WatchLoadResponse> next_ ABSL_GUARDED_BY(mutex_);
  absl::Time counted_at_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  uint64_t counted_steps_ ABSL_GUARDED_BY(mutex_) = 0;
  bool busy_ ABSL_GUARDED_BY(mutex_) = false;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
};

LoadFeed::LoadFeed(std::function<v1::WatchLoadResponse()> snapshot)
    : snapshot_(std::move(snapshot)), thread_([this] { Run(); }) {}

LoadFeed::~LoadFeed() {
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
  }
  thread_.join();
}

grpc::ServerWriteReactor<v1::WatchLoadResponse>* LoadFeed::Watch(absl::Duration interval) {
  auto watcher = std::make_shared<Watcher>(interval, [this](Watcher* done) { Forget(done); });
  absl::MutexLock lock(&mutex_);
  watchers_.emplace(watcher.get(), watcher);
  joined_ = true;  // due since ever: the thread sends the first snapshot too
  return watcher.get();
}

void LoadFeed::Announce() {
  absl::MutexLock lock(&mutex_);
  announced_ = true;
}

void LoadFeed::End() {
  absl::MutexLock lock(&mutex_);
  ended_ = true;
  announced_ = true;
}

void LoadFeed::Run() {
  std::vector<std::shared_ptr<Watcher>> woken;
  while (true) {
    bool last = false;
    {
      absl::MutexLock lock(&mutex_);
      absl::Time next = absl::InfiniteFuture();
      for (const auto& [key, watcher] : watchers_) next = std::min(next, watcher->due());
      mutex_.AwaitWithDeadline(absl::Condition(this, &LoadFeed::IsAwake), next);
      if (stop_) return;
      joined_ = false;
      const bool all = std::exchange(announced_, false) || ended_;
      last = ended_;
      for (const auto& [key, watcher] : watchers_) {
        if (all || watcher->due() <= absl::Now()) woken.push_back(watcher);
      }
    }
    for (const auto& watcher : woken) watcher->Publish(snapshot_(), absl::Now(), last);
    woken.clear();
  }
}

void LoadFeed::Forget(Watcher* watcher) {
  absl::MutexLock lock(&mutex_);
  watchers_.erase(watcher);
}

}  // namespace behemoth::worker
