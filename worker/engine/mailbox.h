// What other threads send to the engine thread: requests, and what happens to requests in flight.
//
// Thread-safe. Bounds: requests and prompt tokens that were never admitted to a step (in here or in
// the scheduler's queue), and controls on their way. Full = RESOURCE_EXHAUSTED at once, with
// nothing changed. An abort is never refused: there is at most one for each request in flight.
// Knows the ids in flight, so that a second request of the same id is refused before it is sent.
#pragma once

#include <absl/base/thread_annotations.h>
#include <absl/container/flat_hash_map.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/synchronization/mutex.h>
#include <absl/time/time.h>

#include <cstdint>
#include <functional>
#include <string>
#include <variant>
#include <vector>

#include "worker/schedule/generation.h"
#include "worker/schedule/scheduler.h"

namespace behemoth::worker {

struct MailboxLimits {
  int32_t queue_requests = 1024;
  // A single request is let into an empty queue whatever its size: it fits the context.
  int64_t queue_tokens = 1 << 20;
  int32_t controls = 4096;
};

// Tells two requests of the same id apart that were in flight one after the other.
using RequestSerial = uint64_t;

// The answer to a control, on the engine thread: must not block.
using ControlDone = std::function<void(const absl::Status&)>;

struct CancelRequest {
  std::string request_id;
  ControlDone done;
};
struct AbortRequest {
  std::string request_id;
  RequestSerial serial = 0;
  absl::Status why;
};
struct ForceIds {
  std::string request_id;
  int32_t sequence = 0;
  std::vector<TokenId> ids;
  ControlDone done;
};
struct ExtendMaxTokens {
  std::string request_id;
  int32_t additional_tokens = 0;
  ControlDone done;
};
struct RewindRequest {
  std::string request_id;
  Rewind rewind;
  ControlDone done;
};
using Mail = std::variant<GenerationRequest, CancelRequest, AbortRequest, ForceIds, ExtendMaxTokens,
                          RewindRequest>;

class Mailbox {
 public:
  explicit Mailbox(const MailboxLimits& limits) : limits_(limits) {}

  // ALREADY_EXISTS, RESOURCE_EXHAUSTED, or why the mailbox is closed.
  absl::StatusOr<RequestSerial> Submit(GenerationRequest request);
  // An AbortRequest is taken even when closed. RESOURCE_EXHAUSTED, or why the mailbox is closed.
  absl::Status Post(Mail control);
  // From now on everything but aborts is refused with `why`. The first reason stays.
  void Close(const absl::Status& why);
  // Take returns, now or when it is called next: something else than mail has come.
  void Wake();
  // Wakes Take.
  void Stop();
  // Waits until every request that was let in has left. False = `deadline` came first.
  bool AwaitEmpty(absl::Time deadline);

  // ---- Engine thread ----
  // Swaps what has come into `mail` (cleared first); waits for some, for Wake, Stop or `until`.
  // False = stop.
  bool Take(absl::Time until, std::vector<Mail>* mail);
  // Whether `serial` is the request in flight under this id.
  bool IsInFlight(const std::string& request_id, RequestSerial serial);
  // Requests that have left the queue, and ids that have left the engine.
  void Release(const Dequeued& dequeued, const std::vector<std::string>& ended_ids);

 private:
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stop_ || woken_ || !mail_.empty();
  }
  bool IsEmpty() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return in_flight_.empty(); }

  const MailboxLimits limits_;
  absl::Mutex mutex_;
  std::vector<Mail> mail_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<std::string, RequestSerial> in_flight_ ABSL_GUARDED_BY(mutex_);
  RequestSerial last_serial_ ABSL_GUARDED_BY(mutex_) = 0;
  int32_t queued_requests_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t queued_tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  int32_t controls_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status closed_ ABSL_GUARDED_BY(mutex_);
  bool woken_ ABSL_GUARDED_BY(mutex_) = false;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace behemoth::worker
