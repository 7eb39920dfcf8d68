#include "worker/parallel/in_process_group.h"

#include <absl/strings/str_cat.h>
#include <absl/synchronization/mutex.h>

#include <algorithm>
#include <cstring>

namespace behemoth::worker {
namespace {

// What the ranks share: where each one's values lie, and a barrier.
class MeetingPoint {
 public:
  explicit MeetingPoint(int32_t size) : offers_(static_cast<size_t>(size)) {}

  struct Offer {
    const void* values = nullptr;
    size_t bytes = 0;
  };

  // Returns when every rank has called it: offers may be read until the rank's next Meet.
  absl::Status Meet(int32_t rank, const Offer& offer) {
    absl::MutexLock lock(&mutex_);
    offers_[static_cast<size_t>(rank)] = offer;
    return AwaitAll();
  }
  // The same with nothing to offer: nobody reads what was offered any more.
  absl::Status Part() {
    absl::MutexLock lock(&mutex_);
    return AwaitAll();
  }
  void Abort(const absl::Status& why) {
    absl::MutexLock lock(&mutex_);
    if (aborted_.ok()) aborted_ = why;
  }

  // From Meet to Part, where nobody writes them.
  const std::vector<Offer>& offers() const { return offers_; }

 private:
  absl::Status AwaitAll() {
    const uint64_t round = round_;
    if (++arrived_ == offers_.size()) {
      arrived_ = 0;
      ++round_;
    }
    const auto met = [&] { return round_ != round || !aborted_.ok(); };
    mutex_.Await(absl::Condition(&met));
    return aborted_;
  }

  absl::Mutex mutex_;
  std::vector<Offer> offers_;
  size_t arrived_ = 0;
  uint64_t round_ = 0;
  absl::Status aborted_;
};

class InProcessGroup : public RankGroup {
 public:
  InProcessGroup(int32_t rank, int32_t size, std::shared_ptr<MeetingPoint> point)
      : RankGroup(rank, size), point_(std::move(point)) {}

  absl::Status AllReduce(void* values, size_t count, SumElement element, CUstream_st*) override {
    if (element != SumElement::kFloat) {
      return absl::UnimplementedError("ranks on the host add floats");
    }
    const size_t bytes = count * sizeof(float);
    if (absl::Status met = Gather(values, bytes); !met.ok()) return met;
    sum_.assign(count, 0.0f);
    for (const MeetingPoint::Offer& offer : point_->offers()) {
      const auto* part = static_cast<const float*>(offer.values);
      for (size_t i = 0; i < count; ++i) sum_[i] += part[i];
    }
    // All have read before anybody writes.
    if (absl::Status met = point_->Part(); !met.ok()) return met;
    std::memcpy(values, sum_.data(), bytes);
    return absl::OkStatus();
  }

  absl::Status AllGather(const void* part, size_t bytes, void* all, CUstream_st*) override {
    if (absl::Status met = Gather(part, bytes); !met.ok()) return met;
    auto* to = static_cast<std::byte*>(all);
    for (const MeetingPoint::Offer& offer : point_->offers()) {
      std::memcpy(to, offer.values, bytes);
      to += bytes;
    }
    return point_->Part();
  }

  void Abort(const absl::Status& why) override { point_->Abort(why); }

 private:
  // INTERNAL if the ranks do not agree on what they are about.
  absl::Status Gather(const void* values, size_t bytes) {
    if (absl::Status met = point_->Meet(rank(), {values, bytes}); !met.ok()) return met;
    for (const MeetingPoint::Offer& offer : point_->offers()) {
      if (offer.bytes == bytes) continue;
      return absl::InternalError(absl::StrCat("ranks: ", offer.bytes, " bytes meet ", bytes));
    }
    return absl::OkStatus();
  }

  const std::shared_ptr<MeetingPoint> point_;
  std::vector<float> sum_;
};

}  // namespace

std::vector<std::unique_ptr<RankGroup>> MakeInProcessGroup(int32_t size) {
  const auto point = std::make_shared<MeetingPoint>(size);
  std::vector<std::unique_ptr<RankGroup>> ranks;
  for (int32_t rank = 0; rank < size; ++rank) {
    ranks.push_back(std::make_unique<InProcessGroup>(rank, size, point));
  }
  return ranks;
}

}  // namespace behemoth::worker
