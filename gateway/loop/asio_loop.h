// Loops on Boost.Asio: one io_context and one thread each, so no strand and no lock is needed.
//
// Life: constructed with their threads running -> Stop() or destructor (joins). Construction and
// Stop belong to the composition root.
#pragma once

#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <memory>
#include <thread>
#include <vector>

#include "gateway/loop/loop.h"

namespace behemoth::gateway {

class AsioLoop final : public Loop {
 public:
  AsioLoop();
  ~AsioLoop() override;
  void Post(Task task) override;
  std::unique_ptr<Timer> NewTimer() override;
  absl::Time Now() const override;

  boost::asio::io_context& io() { return io_; }
  // Stops after the handler that runs now; joins. Not from the loop's own thread. Idempotent.
  void Stop();

 private:
  boost::asio::io_context io_{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  std::thread thread_;
};

class LoopGroup {
 public:
  explicit LoopGroup(int threads);
  AsioLoop& at(size_t index) { return *loops_[index]; }
  AsioLoop& Next();  // round robin; thread-safe
  size_t size() const { return loops_.size(); }
  void Stop();

 private:
  std::vector<std::unique_ptr<AsioLoop>> loops_;
  std::atomic<size_t> next_{0};
};

}  // namespace behemoth::gateway
