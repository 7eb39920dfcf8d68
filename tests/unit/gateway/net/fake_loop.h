// A loop without thread and clock: posted tasks and due timers run when the test says so.
#pragma once

#include <algorithm>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "gateway/loop/loop.h"

namespace behemoth::gateway {

class FakeLoop final : public Loop {
 public:
  void Post(Task task) override { tasks_.push_back(std::move(task)); }
  std::unique_ptr<Timer> NewTimer() override { return std::make_unique<FakeTimer>(this); }
  absl::Time Now() const override { return now_; }

  void Run() {
    while (!tasks_.empty()) {
      Task task = std::move(tasks_.front());
      tasks_.pop_front();
      task();
    }
  }

  // Runs everything that becomes due on the way, in order.
  void Advance(absl::Duration by) {
    const absl::Time end = now_ + by;
    for (Run(); FakeTimer* due = FirstDue(end); Run()) {
      now_ = std::max(now_, due->at);
      due->at = absl::InfiniteFuture();
      std::exchange(due->task, nullptr)();
    }
    now_ = end;
  }

 private:
  struct FakeTimer final : Timer {
    explicit FakeTimer(FakeLoop* l) : loop(l) { loop->timers_.push_back(this); }
    ~FakeTimer() override { std::erase(loop->timers_, this); }
    void Start(absl::Duration after, Task t) override {
      at = loop->now_ + after;
      task = std::move(t);
    }
    void Cancel() override {
      at = absl::InfiniteFuture();
      task = nullptr;
    }
    FakeLoop* const loop;
    absl::Time at = absl::InfiniteFuture();
    Task task;
  };

  FakeTimer* FirstDue(absl::Time end) {
    const auto first = std::min_element(timers_.begin(), timers_.end(),
                                        [](auto* a, auto* b) { return a->at < b->at; });
    return first != timers_.end() && (*first)->at <= end ? *first : nullptr;
  }

  absl::Time now_ = absl::FromUnixSeconds(1'000'000);
  std::deque<Task> tasks_;
  std::vector<FakeTimer*> timers_;
};

}  // namespace behemoth::gateway
