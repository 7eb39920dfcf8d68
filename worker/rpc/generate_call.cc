#include "worker/rpc/generate_call.h"

#include <absl/time/clock.h>

#include <algorithm>
#include <utility>

#include "proto/support/status_convert.h"
#include "worker/rpc/event_messages.h"

namespace behemoth::worker {
namespace {

// As many as a request has sequences: their tokens come in turns.
constexpr size_t kCoalesceDepth = 16;

}  // namespace

void GenerateCall::Begin(Engine* engine, GenerationRequest request, absl::Time deadline) {
  Hold();
  const std::string request_id = request.request_id;
  {
    absl::MutexLock lock(&mutex_);
    engine_ = engine;
    request_id_ = request_id;
    deadline_ = deadline;
  }
  request.sink = self_;
  const absl::StatusOr<RequestSerial> serial = engine->Submit(std::move(request));
  if (!serial.ok()) return Refuse(serial.status());
  bool cancelled = false;
  {
    absl::MutexLock lock(&mutex_);
    serial_ = *serial;
    cancelled = cancelled_;
  }
  if (cancelled) engine->Abort(request_id, *serial, absl::CancelledError("the caller is gone"));
}

void GenerateCall::Refuse(const absl::Status& status) {
  Hold();
  {
    absl::MutexLock lock(&mutex_);
    writing_ = true;
  }
  observer_->OnRefused(status);
  Finish(support::ToGrpc(status));
}

bool GenerateCall::Push(TokenEvent event) {
  absl::MutexLock lock(&mutex_);
  if (broken_) return true;  // the abort is on its way
  if (bytes_ > kBufferBytes) return false;
  const size_t bytes = BytesOf(event);
  bool merged = false;
  const size_t depth = std::min(events_.size(), kCoalesceDepth);
  for (size_t i = 1; i <= depth && !merged; ++i) {
    TokenEvent& earlier = events_[events_.size() - i];
    // What comes after a rewind never joins what it has made void.
    if (std::holds_alternative<RewoundEvent>(earlier)) break;
    merged = Coalesce(event, &earlier);
  }
  if (!merged) events_.push_back(std::move(event));
  bytes_ += merged ? bytes - sizeof(TokenEvent) : bytes;
  ScheduleWrite();
  return true;
}

void GenerateCall::Close(const absl::Status& status) {
  absl::MutexLock lock(&mutex_);
  closed_ = status;
  ScheduleWrite();
}

void GenerateCall::ScheduleWrite() {
  mutex_.AssertHeld();
  if (writing_ || scheduled_) return;
  scheduled_ = true;
  writer_->Schedule(shared_from_this());
}

void GenerateCall::OnWriteDone(bool ok) {
  {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    if (!ok) {
      broken_ = true;
      events_.clear();
      bytes_ = 0;
    }
  }
  Advance();
}

// Starts the next write, or the end. After the end nobody gets the token any more.
void GenerateCall::Advance() {
  std::optional<absl::Status> end;
  {
    absl::MutexLock lock(&mutex_);
    scheduled_ = false;
    if (writing_) return;
    if (!events_.empty()) {
      const TokenEvent event = std::move(events_.front());
      events_.pop_front();
      bytes_ -= BytesOf(event);
      ToMessage(event, &response_);
    } else if (closed_) {
      end = closed_;
    } else {
      return;
    }
    writing_ = true;
  }
  if (end) {
    Finish(support::ToGrpc(*end));
  } else {
    StartWrite(&response_);
  }
}

void GenerateCall::OnCancel() {
  Engine* engine = nullptr;
  std::string request_id;
  RequestSerial serial = 0;
  absl::Status why = absl::CancelledError("the caller is gone");
  {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
    if (serial_ == 0) return;  // Begin looks
    engine = engine_;
    request_id = request_id_;
    serial = serial_;
    if (absl::Now() >= deadline_) {
      why = absl::DeadlineExceededError("the call's deadline has passed");
    }
  }
  engine->Abort(std::move(request_id), serial, std::move(why));
}

void GenerateCall::OnDone() { self_.reset(); }

}  // namespace behemoth::worker
