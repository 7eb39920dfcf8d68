#include "gateway/admission/admission.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "gateway/api/api_error.h"

namespace behemoth::gateway {

Ticket::Ticket(Ticket&& other) noexcept
    : admission_(std::exchange(other.admission_, nullptr)), key_(std::move(other.key_)) {}

Ticket& Ticket::operator=(Ticket&& other) noexcept {
  std::swap(admission_, other.admission_);
  std::swap(key_, other.key_);
  return *this;
}

Ticket::~Ticket() {
  if (admission_) admission_->Leave(key_);
}

absl::StatusOr<Ticket> Admission::Enter(const std::string& key, absl::Time now,
                                        const KeyLimits& own) {
  const int most = own.in_flight.value_or(limits_.key_in_flight);
  const int per_minute = own.requests_per_minute.value_or(limits_.key_requests_per_minute);
  absl::MutexLock lock(&mutex_);
  if (draining_) {
    return WithRetryAfter(absl::UnavailableError("The server is shutting down."), 5);
  }
  if (in_flight_ >= limits_.max_in_flight) {
    return WithRetryAfter(absl::ResourceExhaustedError("The server is full."), 2);
  }
  Share& share = shares_[key];
  if (most > 0 && share.in_flight >= most) {
    return WithKeyLimit(WithRetryAfter(absl::ResourceExhaustedError(absl::StrCat(
                                           "This key already has ", most, " requests in flight.")),
                                       1));
  }
  if (const double burst = per_minute; burst > 0) {
    const double earned = absl::ToDoubleSeconds(now - share.refilled) * burst / 60;
    share.tokens =
        share.refilled == absl::InfinitePast() ? burst : std::min(burst, share.tokens + earned);
    share.refilled = now;
    if (share.tokens < 1) {
      const int wait_s = static_cast<int>(std::ceil((1 - share.tokens) * 60 / burst));
      return WithKeyLimit(
          WithRetryAfter(absl::ResourceExhaustedError(absl::StrCat("This key may send ", per_minute,
                                                                   " requests per minute.")),
                         wait_s));
    }
    share.tokens -= 1;
  }
  ++in_flight_;
  ++share.in_flight;
  return Ticket(this, key);
}

void Admission::Leave(const std::string& key) {
  absl::MutexLock lock(&mutex_);
  --in_flight_;
  --shares_[key].in_flight;
}

void Admission::Drain() {
  absl::MutexLock lock(&mutex_);
  draining_ = true;
}

bool Admission::draining() const {
  absl::MutexLock lock(&mutex_);
  return draining_;
}

int Admission::in_flight() const {
  absl::MutexLock lock(&mutex_);
  return in_flight_;
}

bool Admission::WaitIdle(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(this, &Admission::Idle), timeout);
}

}  // namespace behemoth::gateway
