#include "worker/runner/parallel_runner.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <utility>

#include "proto/support/check.h"

namespace behemoth::worker {
namespace {

// What ranks that only waited for another one need to come back once the group has ended.
constexpr absl::Duration kReturnTime = absl::Milliseconds(500);

}  // namespace

ParallelRunner::ParallelRunner(std::vector<Rank> ranks, absl::Duration step_bound)
    : limits_(ranks.front().runner->limits()), step_bound_(step_bound) {
  for (Rank& rank : ranks) {
    members_.push_back(std::make_unique<Member>());
    members_.back()->rank = std::move(rank);
  }
  for (const auto& member : members_) {
    member->thread = std::thread([this, &member = *member] { Work(member); });
  }
}

ParallelRunner::~ParallelRunner() {
  BEHEMOTH_CHECK(!stuck(), "a rank's thread hangs: it cannot be joined");
  {
    absl::MutexLock lock(&mutex_);
    call_ = Call::kStop;
    ++calls_;
  }
  for (const auto& member : members_) member->thread.join();
}

absl::Status ParallelRunner::Submit(const StepPlan& plan) {
  return OnAllRanks(Call::kSubmit, &plan);
}

absl::StatusOr<StepResult> ParallelRunner::Await() {
  if (absl::Status awaited = OnAllRanks(Call::kAwait, nullptr); !awaited.ok()) return awaited;
  if (absl::Status agreed = CheckAgreement(); !agreed.ok()) return agreed;
  return std::move(members_.front()->result);
}

bool ParallelRunner::stuck() const {
  absl::MutexLock lock(&mutex_);
  return pending_ > 0;
}

absl::Status ParallelRunner::OnAllRanks(Call call, const StepPlan* plan) {
  absl::MutexLock lock(&mutex_);
  if (!failure_.ok()) return failure_;
  const absl::Duration bound = calls_ == 0 ? std::max(step_bound_, kFirstCallBound) : step_bound_;
  call_ = call;
  plan_ = plan;
  pending_ = members_.size();
  ++calls_;
  const auto done = [this] {
    mutex_.AssertHeld();
    return pending_ == 0;
  };
  const auto done_or_failed = [this] {
    mutex_.AssertHeld();
    return pending_ == 0 || !failure_.ok();
  };
  if (!mutex_.AwaitWithTimeout(absl::Condition(&done_or_failed), bound)) {
    End(absl::DeadlineExceededError(absl::StrCat(pending_, " of ", members_.size(),
                                                 " ranks have not done a step within ",
                                                 absl::FormatDuration(bound))));
  }
  if (!failure_.ok()) mutex_.AwaitWithTimeout(absl::Condition(&done), kReturnTime);
  return failure_;
}

// The lock is not held across a group's call: a rank's thread may need it to come back.
void ParallelRunner::End(const absl::Status& why) {
  if (!failure_.ok()) return;
  failure_ = why;
  mutex_.Unlock();
  for (const auto& member : members_) member->rank.group->Abort(why);
  mutex_.Lock();
}

void ParallelRunner::Work(Member& member) {
  uint64_t seen = 0;
  while (true) {
    Call call;
    const StepPlan* plan;
    {
      absl::MutexLock lock(&mutex_);
      const auto called = [&] {
        mutex_.AssertHeld();
        return calls_ != seen;
      };
      mutex_.Await(absl::Condition(&called));
      seen = calls_;
      call = call_;
      plan = plan_;
    }
    if (call == Call::kStop) return;
    const absl::Status answer = Answer(member, call, plan);
    absl::MutexLock lock(&mutex_);
    if (!answer.ok()) {
      const int32_t rank = member.rank.group->rank();
      End(absl::Status(answer.code(), absl::StrCat("rank ", rank, ": ", answer.message())));
    }
    --pending_;
  }
}

absl::Status ParallelRunner::Answer(Member& member, Call call, const StepPlan* plan) {
  if (call == Call::kSubmit) return member.rank.runner->Submit(*plan);
  absl::StatusOr<StepResult> result = member.rank.runner->Await();
  if (!result.ok()) return result.status();
  member.result = *std::move(result);
  return absl::OkStatus();
}

// Ranks that disagree would go on from different tokens. Equal inputs and equal sums make equal
// tokens, so another one is a device's error, not a near tie.
absl::Status ParallelRunner::CheckAgreement() const {
  const StepResult& first = members_.front()->result;
  for (const auto& member : members_) {
    const bool equal =
        std::equal(first.samples.begin(), first.samples.end(), member->result.samples.begin(),
                   member->result.samples.end(), [](const SampleResult& a, const SampleResult& b) {
                     return a.finite == b.finite && (a.token == b.token || !a.finite);
                   });
    if (!equal) {
      return absl::InternalError(absl::StrCat("rank ", member->rank.group->rank(),
                                              " has sampled other tokens than rank 0 in step ",
                                              first.number));
    }
  }
  return absl::OkStatus();
}

}  // namespace behemoth::worker
