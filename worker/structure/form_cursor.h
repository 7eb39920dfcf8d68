// One sequence's Form: the tokens go to a thread of the mask queue, masks come back.
// Advance on the engine thread, state() and mask() on any.
#pragma once

#include <absl/base/thread_annotations.h>
#include <absl/synchronization/mutex.h>

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "worker/schedule/form.h"
#include "worker/structure/form_matcher.h"
#include "worker/structure/work_queue.h"

namespace behemoth::worker {

class FormCursor : public Form, public std::enable_shared_from_this<FormCursor> {
 public:
  // The first mask is computed here. `queue` and `wake` outlive the cursor; `wake` is called on the
  // queue's thread after every change of state.
  FormCursor(std::shared_ptr<const CompiledForm> form, std::vector<TokenId> stop_ids,
             WorkQueue* queue, const std::function<void()>* wake);

  void Advance(TokenId token) override;
  void Restart(std::vector<TokenId> tokens) override;
  FormState state() const override;
  std::shared_ptr<const TokenMask> mask() const override;

 private:
  void Post() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Work();

  const std::shared_ptr<const CompiledForm> form_;
  const std::vector<TokenId> stop_ids_;
  WorkQueue* const queue_;
  const std::function<void()>* const wake_;
  mutable absl::Mutex mutex_;
  std::vector<TokenId> incoming_ ABSL_GUARDED_BY(mutex_);
  bool restarts_ ABSL_GUARDED_BY(mutex_) = false;  // before the incoming tokens
  bool posted_ ABSL_GUARDED_BY(mutex_) = false;
  FormState state_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const TokenMask> mask_ ABSL_GUARDED_BY(mutex_);
  std::optional<FormMatcher> matcher_;  // of the thread that works: one at a time
};

}  // namespace behemoth::worker
