#include "worker/device/cpu/thread_team.h"

namespace behemoth::worker::cpu {

ThreadTeam::ThreadTeam(int32_t threads) : size_(threads < 1 ? 1 : threads) {
  for (int32_t thread = 1; thread < size_; ++thread) {
    threads_.emplace_back([this, thread] { Work(thread); });
  }
}

ThreadTeam::~ThreadTeam() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  start_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadTeam::RunRange(int32_t thread, int32_t items, const Loop& loop) const {
  const int64_t begin = int64_t{items} * thread / size_;
  const int64_t end = int64_t{items} * (thread + 1) / size_;
  if (begin < end) loop(thread, static_cast<int32_t>(begin), static_cast<int32_t>(end));
}

void ThreadTeam::Run(int32_t items, const Loop& loop) {
  if (size_ == 1 || items <= 1) {
    if (items > 0) loop(0, 0, items);
    return;
  }
  {
    std::lock_guard lock(mutex_);
    loop_ = &loop;
    items_ = items;
    busy_ = size_ - 1;
    ++round_;
  }
  start_.notify_all();
  RunRange(0, items, loop);
  std::unique_lock lock(mutex_);
  done_.wait(lock, [this] { return busy_ == 0; });
}

void ThreadTeam::Work(int32_t thread) {
  uint64_t seen = 0;
  std::unique_lock lock(mutex_);
  while (true) {
    start_.wait(lock, [&] { return stopping_ || round_ != seen; });
    if (stopping_) return;
    seen = round_;
    const Loop& loop = *loop_;
    const int32_t items = items_;
    lock.unlock();
    RunRange(thread, items, loop);
    lock.lock();
    if (--busy_ == 0) done_.notify_one();
  }
}

}  // namespace behemoth::worker::cpu
