#include "gateway/loop/asio_loop.h"

#include <absl/time/clock.h>

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <utility>

namespace behemoth::gateway {
namespace {

// Asio may run a handler that was already queued when its timer is cancelled; the generation
// number, shared with the handler, is what makes Cancel() final.
class AsioTimer final : public Timer {
 public:
  explicit AsioTimer(boost::asio::io_context& io) : timer_(io) {}
  ~AsioTimer() override { Cancel(); }

  void Start(absl::Duration after, Task task) override {
    const uint64_t mine = ++*generation_;
    timer_.expires_after(absl::ToChronoNanoseconds(after));
    timer_.async_wait([generation = generation_, mine,
                       task = std::move(task)](boost::system::error_code error) mutable {
      if (!error && *generation == mine) task();
    });
  }

  void Cancel() override {
    ++*generation_;
    timer_.cancel();
  }

 private:
  boost::asio::steady_timer timer_;
  std::shared_ptr<uint64_t> generation_ = std::make_shared<uint64_t>(0);
};

}  // namespace

AsioLoop::AsioLoop() : work_(io_.get_executor()), thread_([this] { io_.run(); }) {}

AsioLoop::~AsioLoop() { Stop(); }

void AsioLoop::Post(Task task) { boost::asio::post(io_, std::move(task)); }

std::unique_ptr<Timer> AsioLoop::NewTimer() { return std::make_unique<AsioTimer>(io_); }

absl::Time AsioLoop::Now() const { return absl::Now(); }

void AsioLoop::Stop() {
  io_.stop();
  if (thread_.joinable()) thread_.join();
}

LoopGroup::LoopGroup(int threads) {
  for (int i = 0; i < threads; ++i) loops_.push_back(std::make_unique<AsioLoop>());
}

AsioLoop& LoopGroup::Next() {
  return *loops_[next_.fetch_add(1, std::memory_order_relaxed) % loops_.size()];
}

void LoopGroup::Stop() {
  for (auto& loop : loops_) loop->Stop();
}

}  // namespace behemoth::gateway
