#include "worker/structure/work_queue.h"

#include <utility>

namespace behemoth::worker {

WorkQueue::WorkQueue(int threads, size_t bound) : bound_(bound) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
}

bool WorkQueue::Post(absl::AnyInvocable<void()> work) {
  absl::MutexLock lock(&mutex_);
  if (stop_ || work_.size() >= bound_) return false;
  work_.push_back(std::move(work));
  return true;
}

void WorkQueue::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void WorkQueue::Run() {
  while (true) {
    absl::AnyInvocable<void()> work;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &WorkQueue::HasWork));
      if (work_.empty()) return;
      work = std::move(work_.front());
      work_.pop_front();
    }
    work();
  }
}

}  // namespace behemoth::worker
