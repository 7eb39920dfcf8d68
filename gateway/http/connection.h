// One client connection: reads requests one after the other, answers them in order.
//
// States: kIdle -> kHead -> kBody -> kExchange -> kIdle ... -> kLinger -> kClosed. Loop thread
// only; kept alive by its own pending operations and by the server's list until kClosed. Always
// reading, also during an exchange: that is how a client that goes away, or closes its half, is
// noticed at once. What a client pipelines waits, up to the size of one head, until the reply
// before it is done and mostly sent; more stops the reading. A 64 KiB slice that does not leave in
// write_timeout_ms, or a stream's queue over queue_bytes, is a slow reader: counted once, the
// exchange is cancelled and the connection cut.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "gateway/http/application.h"
#include "gateway/http/limits.h"
#include "gateway/http/request_parser.h"
#include "gateway/http/transport.h"
#include "gateway/loop/loop.h"

namespace behemoth::gateway {

class Connection final : public Responder, public std::enable_shared_from_this<Connection> {
 public:
  struct Setup {
    std::unique_ptr<Transport> transport;
    std::string peer;
    Loop* loop;
    Application* application;
    const HttpLimits* limits;
    std::function<void(Connection*)> on_closed;  // once
  };
  explicit Connection(Setup setup);

  void Start();
  // No further request after the one in work; an idle connection closes when its last reply is out.
  void Retire();
  // The same, and a connection that has not sent a byte yet closes too.
  void RetireUnlessBusy();
  void Close();

  // Responder
  void Send(Response response) override;
  void BeginStream(Response head) override;
  void Write(std::string_view bytes) override;
  void End(bool keep_alive) override;
  size_t queued_bytes() const override { return out_.size() + writing_.size() - written_; }

 private:
  enum class State { kIdle, kHead, kBody, kExchange, kLinger, kClosed };

  void Read();
  void OnRead(boost::system::error_code error, size_t bytes);
  void Consume();
  bool OnHead();  // false: refused, stop consuming
  void OnBody();
  void RefuseAndClose(Response response);
  void FinishReply(bool keep_alive);
  void Linger();
  void CutSlowReader();
  void Flush();
  void WriteSlice();
  void OnWritten(boost::system::error_code error, size_t bytes);
  void OnTimeout();
  void Enter(State state);
  int TimeoutMs(State state) const;

  Setup setup_;
  State state_ = State::kIdle;
  std::unique_ptr<Timer> timer_, write_timer_;
  std::optional<RequestParser> parser_;
  std::shared_ptr<Exchange> exchange_;
  std::string in_;       // read and not yet consumed
  std::string scratch_;  // where the pending read goes
  std::string out_, writing_;
  size_t written_ = 0;  // of writing_
  bool reading_ = false, retired_ = false, keep_alive_ = false, chunked_ = false;
  bool head_only_ = false, close_after_write_ = false, too_slow_ = false;
};

}  // namespace behemoth::gateway
