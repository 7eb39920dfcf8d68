// One model on several ranks as one runner: a thread for each rank, every step on all of them. The
// result is rank 0's; all ranks sample, and a rank that sampled another token has failed.
//
// Failure. A rank's error ends the group: the other ranks' collectives return, and so does the
// call. A step that is not done on all ranks within its bound does the same, whoever hangs and
// wherever: a thread that does not come back even then makes the runner stuck().
//
// Thread: as ModelRunner. The ranks' runners were made on any threads and are used on these only.
#pragma once

#include <absl/base/thread_annotations.h>
#include <absl/synchronization/mutex.h>
#include <absl/time/time.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "worker/parallel/rank_group.h"
#include "worker/runner/model_runner.h"

namespace behemoth::worker {

class ParallelRunner : public ModelRunner {
 public:
  // A rank's runner and its end of the group, which outlives this.
  struct Rank {
    std::unique_ptr<ModelRunner> runner;
    RankGroup* group = nullptr;
  };
  // The first call, which loads kernels and joins devices, has kFirstCallBound if that is longer.
  static constexpr absl::Duration kFirstCallBound = absl::Seconds(60);

  ParallelRunner(std::vector<Rank> ranks, absl::Duration step_bound);
  // Not while stuck().
  ~ParallelRunner() override;

  RunnerLimits limits() const override { return limits_; }
  absl::Status Submit(const StepPlan& plan) override;
  absl::StatusOr<StepResult> Await() override;
  bool stuck() const override;

 private:
  enum class Call { kSubmit, kAwait, kStop };
  // One rank's answers; written by its thread before it says that it is done.
  struct Member {
    Rank rank;
    StepResult result;
    std::thread thread;
  };

  void Work(Member& member);
  absl::Status Answer(Member& member, Call call, const StepPlan* plan);
  // Has every rank make the call, and waits.
  absl::Status OnAllRanks(Call call, const StepPlan* plan);
  void End(const absl::Status& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckAgreement() const;

  const RunnerLimits limits_;
  const absl::Duration step_bound_;
  std::vector<std::unique_ptr<Member>> members_;

  mutable absl::Mutex mutex_;
  Call call_ ABSL_GUARDED_BY(mutex_) = Call::kSubmit;
  const StepPlan* plan_ ABSL_GUARDED_BY(mutex_) = nullptr;
  uint64_t calls_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t pending_ ABSL_GUARDED_BY(mutex_) = 0;  // ranks that have not answered the last call
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace behemoth::worker
