// Load on a gateway in front of token_source: load_client PORT MODE [STREAMS] [REQUESTS] [TOKENS].
//   ttfb        STREAMS connections, one request after the other: first byte of the event stream
//   throughput  STREAMS connections side by side: tokens a second over all of them
//   idle        opens STREAMS streams at once, waits for the first token of each, prints "open",
//   holds them
//               until its stdin ends
#include <sys/resource.h>

#include <algorithm>
#include <boost/asio.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace {

using boost::asio::ip::tcp;
using Clock = std::chrono::steady_clock;

struct Plan {
  int port, streams, requests, tokens;
  bool hold;
};

struct Totals {
  std::vector<double> first_byte_ms;
  long tokens = 0, finished = 0, failed = 0, started = 0;
};

class Client : public std::enable_shared_from_this<Client> {
 public:
  Client(boost::asio::io_context& io, const Plan& plan, Totals& totals)
      : socket_(io), plan_(plan), totals_(totals), left_(plan.requests) {}

  void Start() {
    socket_.async_connect(
        {boost::asio::ip::address_v4::loopback(), static_cast<unsigned short>(plan_.port)},
        [self = shared_from_this()](auto error) {
          if (error) return self->Fail();
          self->socket_.set_option(tcp::no_delay(true));
          self->Send();
        });
  }

 private:
  void Send() {
    const std::string body =
        R"({"model":"source","stream":true,"messages":[{"role":"user","content":"Who art thou?"}],)"
        R"("max_tokens":)" +
        std::to_string(plan_.tokens) + "}";
    request_ =
        "POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: "
        "application/json\r\nContent-Length: " +
        std::to_string(body.size()) + "\r\n\r\n" + body;
    tail_.clear();
    first_ = true;
    begin_ = Clock::now();
    boost::asio::async_write(
        socket_, boost::asio::buffer(request_),
        [self = shared_from_this()](auto error, size_t) { error ? self->Fail() : self->Read(); });
  }

  void Read() {
    socket_.async_read_some(boost::asio::buffer(buffer_),
                            [self = shared_from_this()](auto error, size_t bytes) {
                              error ? self->Fail() : self->Take(bytes);
                            });
  }

  // The events that carry text, and the last chunk of the body.
  void Take(size_t bytes) {
    if (std::exchange(first_, false)) {
      if (std::string_view(buffer_, bytes).substr(0, 12) != "HTTP/1.1 200") return Fail();
      totals_.first_byte_ms.push_back(
          std::chrono::duration<double, std::milli>(Clock::now() - begin_).count());
      ++totals_.started;
    }
    const size_t old = tail_.size();
    tail_.append(buffer_, bytes);
    for (size_t at = tail_.find(" w"); at != std::string::npos; at = tail_.find(" w", at + 2)) {
      if (at + 2 > old) ++totals_.tokens;
    }
    const bool over = tail_.find("\r\n0\r\n\r\n") != std::string::npos;
    if (over && tail_.find("[DONE]") == std::string::npos) ++totals_.failed;
    if (over) return Done();
    if (tail_.size() > 64) tail_.erase(0, tail_.size() - 64);
    Read();
  }

  void Done() {
    ++totals_.finished;
    if (--left_ > 0) Send();
  }
  void Fail() { ++totals_.failed; }

  tcp::socket socket_;
  const Plan& plan_;
  Totals& totals_;
  int left_;
  bool first_ = true;
  Clock::time_point begin_;
  std::string request_, tail_;
  char buffer_[4096];
};

double Percentile(std::vector<double>& values, double p) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<size_t>(p * values.size()))];
}

void Hold(boost::asio::io_context& io, const Plan& plan, Totals& totals) {
  const auto begin = Clock::now();
  for (int i = 0; i < plan.streams; ++i) std::make_shared<Client>(io, plan, totals)->Start();
  while (totals.started + totals.failed < plan.streams) io.run_one();
  std::printf("open %ld failed %ld in %.2f s\n", totals.started, totals.failed,
              std::chrono::duration<double>(Clock::now() - begin).count());
  std::fflush(stdout);
  std::getchar();
}

}  // namespace

int main(int argc, char** argv) {
  const auto number = [&](int index, int otherwise) {
    return argc > index ? std::atoi(argv[index]) : otherwise;
  };
  const std::string mode = argc > 2 ? argv[2] : "ttfb";
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  const Plan plan{number(1, 8000), number(3, 1), number(4, 1), number(5, 16), mode == "idle"};
  Totals totals;
  boost::asio::io_context io;
  const auto begin = Clock::now();
  if (plan.hold) {
    Hold(io, plan, totals);
    return totals.failed > 0;
  }
  for (int i = 0; i < plan.streams; ++i) std::make_shared<Client>(io, plan, totals)->Start();
  io.run();
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  std::printf(
      "%s streams=%d finished=%ld failed=%ld tokens=%ld seconds=%.2f tokens_per_s=%.0f "
      "ttfb_ms p50=%.3f p90=%.3f p99=%.3f max=%.3f\n",
      mode.c_str(), plan.streams, totals.finished, totals.failed, totals.tokens, seconds,
      totals.tokens / seconds, Percentile(totals.first_byte_ms, .5),
      Percentile(totals.first_byte_ms, .9), Percentile(totals.first_byte_ms, .99),
      Percentile(totals.first_byte_ms, 1));
  return totals.failed > 0;
}
