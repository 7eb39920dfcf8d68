#include "worker/rpc/engine_watchdog.h"

#include <absl/time/clock.h>

#include <algorithm>
#include <utility>

#include "behemoth/worker/v1/worker.grpc.pb.h"
#include "proto/support/log.h"

namespace behemoth::worker {
namespace {

constexpr char kShortName[] = "behemoth.worker.v1.Worker";
// A stall is seen at most this much after the limit.
constexpr absl::Duration kLongestPeriod = absl::Milliseconds(500);

}  // namespace

EngineWatchdog::EngineWatchdog(absl::Duration limit, std::function<absl::Time()> last_beat,
                               StatusBoard* board, support::Health* health)
    : limit_(limit), last_beat_(std::move(last_beat)), board_(board), health_(health) {
  Refresh();
  thread_ = std::thread([this] { Run(); });
}

EngineWatchdog::~EngineWatchdog() {
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
  }
  thread_.join();
}

void EngineWatchdog::Refresh() {
  absl::MutexLock lock(&setting_);
  const bool serving = board_->reported() == WorkerState::kReady;
  health_->Set(v1::WorkerService::service_full_name(), serving);
  health_->Set(kShortName, serving);
  // The process's own health: what a liveness probe asks. Loading and draining are life.
  health_->Set("", board_->reported() != WorkerState::kFailed);
}

void EngineWatchdog::CheckBeat() {
  if (board_->state() != WorkerState::kReady) return;
  const absl::Duration age = absl::Now() - last_beat_();
  const bool fresh = age <= limit_;
  if (fresh != board_->responsive()) {
    support::Log().error("engine responsive={} last_beat_s={:.1f}", fresh,
                         absl::ToDoubleSeconds(age));
    board_->SetResponsive(fresh);
  }
}

void EngineWatchdog::Run() {
  const absl::Duration period = std::min(limit_ / 4, kLongestPeriod);
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (mutex_.AwaitWithTimeout(absl::Condition(&stop_), period)) return;
    }
    CheckBeat();
  }
}

}  // namespace behemoth::worker
