// A few threads that share one loop at a time: the CPU backend's parallel for.
//
// Run() splits [0, items) into one consecutive range per thread and returns when all are done; the
// caller works on the first range itself. Which thread does an item never changes its value.
// Thread: Run() by one thread at a time. Waits by condition, never by spinning.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace behemoth::worker::cpu {

class ThreadTeam {
 public:
  // f(thread, begin, end)
  using Loop = std::function<void(int32_t thread, int32_t begin, int32_t end)>;

  explicit ThreadTeam(int32_t threads);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int32_t size() const { return size_; }
  void Run(int32_t items, const Loop& loop);

 private:
  void Work(int32_t thread);
  void RunRange(int32_t thread, int32_t items, const Loop& loop) const;

  const int32_t size_;
  std::mutex mutex_;
  std::condition_variable start_, done_;
  const Loop* loop_ = nullptr;  // guarded by mutex_, as all below
  int32_t items_ = 0;
  uint64_t round_ = 0;
  int32_t busy_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace behemoth::worker::cpu
