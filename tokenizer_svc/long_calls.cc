#include "tokenizer_svc/long_calls.h"

#include <utility>

namespace behemoth::tokenizer {

LongCalls::LongCalls(int threads, size_t max_waiting) : max_waiting_(max_waiting) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Work(); });
}

LongCalls::~LongCalls() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
}

bool LongCalls::TryRun(std::function<void()> call) {
  absl::MutexLock lock(&mutex_);
  // A thread that was woken and has not yet taken its call must not make room for two.
  if (busy_ + waiting_.size() >= threads_.size() + max_waiting_) return false;
  waiting_.push_back(std::move(call));
  return true;
}

void LongCalls::Work() {
  for (;;) {
    std::function<void()> call;
    {
      absl::MutexLock lock(&mutex_);
      const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return stopping_ || !waiting_.empty();
      };
      mutex_.Await(absl::Condition(&ready));
      if (waiting_.empty()) return;
      call = std::move(waiting_.front());
      waiting_.pop_front();
      ++busy_;
    }
    call();
    absl::MutexLock lock(&mutex_);
    --busy_;
  }
}

}  // namespace behemoth::tokenizer
