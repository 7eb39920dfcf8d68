#include "worker/schedule/fair_queue.h"

#include <algorithm>

#include "proto/support/check.h"

namespace behemoth::worker {

int64_t FairQueue::Floor() const {
  if (active_.empty()) return idle_floor_;
  return (*std::min_element(active_.begin(), active_.end(),
                            [](const FairShare* a, const FairShare* b) {
                              return a->virtual_time < b->virtual_time;
                            }))
      ->virtual_time;
}

FairShare* FairQueue::Join(const std::string& key) {
  std::unique_ptr<FairShare>& share = shares_[key];
  const int64_t floor = Floor();
  if (share == nullptr) {
    share = std::make_unique<FairShare>();
    share->key = key;
    share->virtual_time = floor;
  }
  if (share->requests++ == 0) {
    share->virtual_time = std::clamp(share->virtual_time, floor, floor + kRememberedWork);
    active_.push_back(share.get());
  }
  return share.get();
}

void FairQueue::Leave(FairShare* share) {
  BEHEMOTH_CHECK(share->requests > 0, "a request left twice");
  if (--share->requests > 0) return;
  std::erase(active_, share);
  if (active_.empty()) idle_floor_ = share->virtual_time;
  if (shares_.size() > active_.size() + kMaxIdleShares) shares_.erase(std::string(share->key));
}

void FairQueue::Push(FairShare* share, const WaitingEntry& entry) {
  if (share->waiting.empty()) waiting_.push_back(share);
  const bool inserted = share->waiting.insert(entry).second;
  BEHEMOTH_CHECK(inserted, "a sequence waits once");
  ++size_;
}

void FairQueue::Remove(FairShare* share, const WaitingEntry& entry) {
  const size_t erased = share->waiting.erase(entry);
  BEHEMOTH_CHECK(erased == 1, "a sequence that does not wait cannot stop waiting");
  if (share->waiting.empty()) std::erase(waiting_, share);
  --size_;
}

Sequence* FairQueue::Front() const {
  const FairShare* least = nullptr;
  for (const FairShare* share : waiting_) {
    if (least == nullptr || share->virtual_time < least->virtual_time ||
        (share->virtual_time == least->virtual_time &&
         share->waiting.begin()->arrival < least->waiting.begin()->arrival)) {
      least = share;
    }
  }
  return least == nullptr ? nullptr : least->waiting.begin()->sequence;
}

}  // namespace behemoth::worker
