#include "worker/parallel/faulty_group.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>
#include <absl/synchronization/notification.h>

#include <utility>
#include <vector>

namespace behemoth::worker {
namespace {

class FaultyGroup : public RankGroup {
 public:
  FaultyGroup(std::unique_ptr<RankGroup> group, const RankFault& fault)
      : RankGroup(group->rank(), group->size()), group_(std::move(group)), fault_(fault) {}

  absl::Status AllReduce(void* values, size_t count, SumElement element,
                         CUstream_st* stream) override {
    if (absl::Status alive = Next(); !alive.ok()) return alive;
    return group_->AllReduce(values, count, element, stream);
  }
  absl::Status AllGather(const void* part, size_t bytes, void* all, CUstream_st* stream) override {
    if (absl::Status alive = Next(); !alive.ok()) return alive;
    return group_->AllGather(part, bytes, all, stream);
  }
  void Abort(const absl::Status& why) override { group_->Abort(why); }
  PeerTable* peers() override { return group_->peers(); }
  absl::Status AnnounceOnPeers() override {
    if (absl::Status alive = Next(); !alive.ok()) return alive;
    return group_->AnnounceOnPeers();
  }

 private:
  absl::Status Next() {
    if (done_++ < fault_.collective) return absl::OkStatus();
    if (fault_.hangs) absl::Notification().WaitForNotification();  // nobody has it
    return absl::InternalError("a rank fault that was asked for");
  }

  const std::unique_ptr<RankGroup> group_;
  const RankFault fault_;
  int64_t done_ = 0;
};

}  // namespace

absl::StatusOr<RankFault> ParseRankFault(const std::string& text) {
  const std::vector<std::string> parts = absl::StrSplit(text, ':');
  RankFault fault;
  if (parts.size() != 3 || !absl::SimpleAtoi(parts[0], &fault.rank) || fault.rank < 0 ||
      (parts[1] != "error" && parts[1] != "hang") ||
      !absl::SimpleAtoi(parts[2], &fault.collective) || fault.collective < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is no RANK:error:COLLECTIVE or RANK:hang:COLLECTIVE"));
  }
  fault.hangs = parts[1] == "hang";
  return fault;
}

std::unique_ptr<RankGroup> WithFault(std::unique_ptr<RankGroup> group, const RankFault& fault) {
  return std::make_unique<FaultyGroup>(std::move(group), fault);
}

}  // namespace behemoth::worker
