#include "worker/engine/mailbox.h"

#include <absl/strings/str_cat.h>

#include <utility>

namespace behemoth::worker {

absl::StatusOr<RequestSerial> Mailbox::Submit(GenerationRequest request) {
  const int64_t tokens = static_cast<int64_t>(request.prompt.size());
  absl::MutexLock lock(&mutex_);
  if (!closed_.ok()) return closed_;
  if (in_flight_.contains(request.request_id)) {
    return absl::AlreadyExistsError(
        absl::StrCat("request_id: ", request.request_id, " is in flight"));
  }
  if (queued_requests_ >= limits_.queue_requests) {
    return absl::ResourceExhaustedError(
        absl::StrCat("queue: full with ", queued_requests_, " requests"));
  }
  if (queued_requests_ > 0 && queued_tokens_ + tokens > limits_.queue_tokens) {
    return absl::ResourceExhaustedError(
        absl::StrCat("queue: full with ", queued_tokens_, " prompt tokens, ", tokens, " more"));
  }
  ++queued_requests_;
  queued_tokens_ += tokens;
  in_flight_.emplace(request.request_id, ++last_serial_);
  mail_.emplace_back(std::move(request));
  return last_serial_;
}

absl::Status Mailbox::Post(Mail control) {
  absl::MutexLock lock(&mutex_);
  if (!std::holds_alternative<AbortRequest>(control)) {
    if (!closed_.ok()) return closed_;
    if (controls_ >= limits_.controls) {
      return absl::ResourceExhaustedError("control: too many are on their way");
    }
    ++controls_;
  }
  mail_.push_back(std::move(control));
  return absl::OkStatus();
}

void Mailbox::Close(const absl::Status& why) {
  absl::MutexLock lock(&mutex_);
  if (closed_.ok()) closed_ = why;
}

void Mailbox::Wake() {
  absl::MutexLock lock(&mutex_);
  woken_ = true;
}

void Mailbox::Stop() {
  absl::MutexLock lock(&mutex_);
  stop_ = true;
}

bool Mailbox::AwaitEmpty(absl::Time deadline) {
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithDeadline(absl::Condition(this, &Mailbox::IsEmpty), deadline);
}

bool Mailbox::Take(absl::Time until, std::vector<Mail>* mail) {
  mail->clear();
  absl::MutexLock lock(&mutex_);
  if (!HasWork() && until != absl::InfinitePast()) {
    mutex_.AwaitWithDeadline(absl::Condition(this, &Mailbox::HasWork), until);
  }
  mail->swap(mail_);
  woken_ = false;
  controls_ = 0;
  return !stop_;
}

bool Mailbox::IsInFlight(const std::string& request_id, RequestSerial serial) {
  absl::MutexLock lock(&mutex_);
  const auto found = in_flight_.find(request_id);
  return found != in_flight_.end() && found->second == serial;
}

void Mailbox::Release(const Dequeued& dequeued, const std::vector<std::string>& ended_ids) {
  if (dequeued.requests == 0 && ended_ids.empty()) return;
  absl::MutexLock lock(&mutex_);
  queued_requests_ -= dequeued.requests;
  queued_tokens_ -= dequeued.tokens;
  for (const std::string& id : ended_ids) in_flight_.erase(id);
}

}  // namespace behemoth::worker
