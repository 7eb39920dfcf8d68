// What the HTTP layer serves: an application that knows nothing of sockets.
//
//   head read    -> Application::Begin: a refusal at once, before the body is read, or an Exchange
//   body read    -> Exchange::Start(body, responder)
//   client gone  -> Exchange::OnGone; the responder must not be touched afterwards
//   reply ended  -> the exchange is released by the connection, never from inside its own call
// Everything about one connection happens on its loop.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <variant>

#include "gateway/http/message.h"
#include "gateway/loop/loop.h"

namespace behemoth::gateway {

// The way back to one client. Loop thread only. After Send, End or Abort it is dead, as after
// OnGone: no further call.
class Responder {
 public:
  virtual ~Responder() = default;
  virtual void Send(Response response) = 0;        // a whole reply
  virtual void BeginStream(Response head) = 0;     // head.body is not used
  virtual void Write(std::string_view bytes) = 0;  // leaves at once if the socket takes it
  virtual void End(bool keep_alive) = 0;           // of a stream
  virtual size_t queued_bytes() const = 0;         // written and not yet taken by the socket
};

class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual void Start(std::string body, std::shared_ptr<Responder> responder) = 0;
  virtual void OnGone() = 0;
  // The socket has taken everything written so far.
  virtual void OnDrained() {}
};

class Application {
 public:
  virtual ~Application() = default;
  using Verdict = std::variant<Response, std::shared_ptr<Exchange>>;
  virtual Verdict Begin(const RequestHead& head, Loop& loop) = 0;
  // The reply to something that HTTP itself refuses.
  virtual Response Refuse(int status, std::string_view message) = 0;
  virtual void OnSlowReader() = 0;
  virtual void OnConnections(int change) = 0;
};

}  // namespace behemoth::gateway
