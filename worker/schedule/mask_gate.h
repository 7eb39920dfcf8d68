// The masks of samples whose last token was on the device when their step was planned: they are
// made while the step runs, and needed only where it samples. The scheduler opens the gate when
// they are there; whoever runs the step waits for it in front of its samples.
//
// Thread-safe. Open once.
#pragma once

#include <absl/synchronization/notification.h>

#include <memory>
#include <utility>
#include <vector>

#include "worker/schedule/form.h"

namespace behemoth::worker {

class MaskGate {
 public:
  // Of the plan's samples with `late_mask`, in their order; null = nobody will read that sample.
  using Masks = std::vector<std::shared_ptr<const TokenMask>>;

  void Open(Masks masks) {
    masks_ = std::move(masks);
    open_.Notify();
  }
  bool is_open() const { return open_.HasBeenNotified(); }
  const Masks& Await() const {
    open_.WaitForNotification();
    return masks_;
  }

 private:
  Masks masks_;
  absl::Notification open_;
};

}  // namespace behemoth::worker
