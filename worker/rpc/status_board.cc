#include "worker/rpc/status_board.h"

#include <utility>

namespace behemoth::worker {

bool MayFollow(WorkerState from, WorkerState to) {
  switch (to) {
    case WorkerState::kLoading:
      return false;
    case WorkerState::kWarming:
      return from == WorkerState::kLoading;
    case WorkerState::kReady:
      return from == WorkerState::kWarming;
    case WorkerState::kDraining:
      return from == WorkerState::kLoading || from == WorkerState::kWarming ||
             from == WorkerState::kReady;
    case WorkerState::kFailed:
      return from != WorkerState::kFailed;
  }
  return false;
}

const char* Name(WorkerState state) {
  switch (state) {
    case WorkerState::kLoading:
      return "loading";
    case WorkerState::kWarming:
      return "warming";
    case WorkerState::kReady:
      return "ready";
    case WorkerState::kDraining:
      return "draining";
    case WorkerState::kFailed:
      return "failed";
  }
  return "";
}

v1::WorkerState ToMessage(WorkerState state) {
  switch (state) {
    case WorkerState::kLoading:
      return v1::WORKER_STATE_LOADING;
    case WorkerState::kWarming:
      return v1::WORKER_STATE_WARMING;
    case WorkerState::kReady:
      return v1::WORKER_STATE_READY;
    case WorkerState::kDraining:
      return v1::WORKER_STATE_DRAINING;
    case WorkerState::kFailed:
      return v1::WORKER_STATE_FAILED;
  }
  return v1::WORKER_STATE_UNSPECIFIED;
}

v1::WatchLoadResponse ToMessage(WorkerState state, const LoadSnapshot& load) {
  v1::WatchLoadResponse message;
  message.set_state(ToMessage(state));
  message.set_running_sequences(static_cast<uint32_t>(load.running_sequences));
  message.set_waiting_requests(static_cast<uint32_t>(load.waiting_requests));
  message.set_waiting_tokens(static_cast<uint64_t>(load.waiting_tokens));
  message.set_free_blocks(static_cast<uint32_t>(load.free_blocks));
  message.set_kv_use(KvUse(load));
  message.set_prefix_cache_digest(load.prefix_digest);
  message.set_steps(load.steps);
  return message;
}

StatusBoard::StatusBoard(v1::GetStatusResponse described) : described_(std::move(described)) {}

bool StatusBoard::Enter(WorkerState to) {
  WorkerState from = state();
  do {
    if (!MayFollow(from, to)) return false;
  } while (!state_.compare_exchange_weak(from, to));
  on_change_();
  return true;
}

void StatusBoard::SetResponsive(bool responsive) {
  if (responsive_.exchange(responsive) != responsive) on_change_();
}

void StatusBoard::SetLoadProgress(uint64_t done_bytes, uint64_t total_bytes, absl::Time now) {
  absl::MutexLock lock(&mutex_);
  if (load_began_ == absl::InfinitePast()) load_began_ = now;
  if (total_bytes == 0) return;
  load_.set_percent(100.0 * static_cast<double>(done_bytes) / static_cast<double>(total_bytes));
  const absl::Duration elapsed = now - load_began_;
  if (done_bytes == 0 || elapsed <= absl::ZeroDuration()) return;
  const double rate = static_cast<double>(done_bytes) / absl::ToDoubleSeconds(elapsed);
  load_.set_bytes_per_second(rate);
  const absl::Duration eta = absl::Seconds(static_cast<double>(total_bytes - done_bytes) / rate);
  load_.mutable_eta()->set_seconds(absl::ToInt64Seconds(eta));
  load_.mutable_eta()->set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(eta - absl::Trunc(eta, absl::Seconds(1)))));
}

double StatusBoard::load_percent() const {
  absl::MutexLock lock(&mutex_);
  return load_.percent();
}

double StatusBoard::load_bytes_per_second() const {
  absl::MutexLock lock(&mutex_);
  return load_.bytes_per_second();
}

void StatusBoard::Fill(v1::GetStatusResponse* response) const {
  *response = described_;
  response->set_state(ToMessage(reported()));
  absl::MutexLock lock(&mutex_);
  *response->mutable_load() = load_;
}

}  // namespace behemoth::worker
