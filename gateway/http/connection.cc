#include "gateway/http/connection.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include <algorithm>
#include <utility>

namespace behemoth::gateway {
namespace {

// An idle stream costs its read buffer; a body wants few system calls.
constexpr size_t kWatchBytes = 256, kHeadBytes = 4 << 10, kBodyBytes = 64 << 10;
// What the write timeout measures: a large reply over a slow line makes progress, slice by slice.
constexpr size_t kSliceBytes = 64 << 10;
// Unsent replies of pipelined requests; over it the next one waits.
constexpr size_t kPipelineBytes = 64 << 10;

void Release(std::string& text) { std::string().swap(text); }

}  // namespace

Connection::Connection(Setup setup)
    : setup_(std::move(setup)),
      timer_(setup_.loop->NewTimer()),
      write_timer_(setup_.loop->NewTimer()) {}

void Connection::Start() {
  setup_.application->OnConnections(+1);
  Enter(State::kHead);  // a fresh connection has as long as a head for handshake and head
  setup_.transport->Handshake([self = shared_from_this()](auto error, size_t) {
    if (error) return self->Close();
    self->Read();
  });
}

void Connection::Retire() {
  retired_ = true;
  if (state_ != State::kIdle) return;
  // The reply before may still be on its way.
  if (queued_bytes() == 0) return Close();
  close_after_write_ = true;
}

void Connection::RetireUnlessBusy() {
  Retire();
  if (state_ == State::kHead && !(parser_ && parser_->started())) Close();
}

void Connection::Close() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  timer_->Cancel();
  write_timer_->Cancel();
  setup_.transport->Close();
  if (auto exchange = std::exchange(exchange_, nullptr)) exchange->OnGone();
  setup_.application->OnConnections(-1);
  if (auto closed = std::exchange(setup_.on_closed, nullptr)) closed(this);
}

int Connection::TimeoutMs(State state) const {
  switch (state) {
    case State::kIdle:
      return setup_.limits->idle_timeout_ms;
    case State::kHead:
      return setup_.limits->head_timeout_ms;
    case State::kBody:
      return setup_.limits->body_timeout_ms;
    case State::kLinger:
      return setup_.limits->linger_timeout_ms;
    default:
      return 0;  // an exchange has its own deadline
  }
}

void Connection::Enter(State state) {
  state_ = state;
  if (const int ms = TimeoutMs(state); ms > 0) {
    timer_->Start(absl::Milliseconds(ms), [this] { OnTimeout(); });
  } else {
    timer_->Cancel();
  }
}

void Connection::OnTimeout() {
  // The last reply is still leaving, at a pace that the write timer accepts.
  if (state_ == State::kIdle && queued_bytes() > 0) return Enter(State::kIdle);
  const bool begun = state_ == State::kBody || (parser_ && parser_->started());
  if (!begun || state_ == State::kLinger) return Close();
  RefuseAndClose(setup_.application->Refuse(408, "The request did not arrive in time."));
}

void Connection::Read() {
  if (reading_ || state_ == State::kClosed) return;
  const bool waiting = state_ == State::kExchange || state_ == State::kIdle;
  if (waiting && in_.size() > setup_.limits->parser.header_bytes) return;
  const size_t size = state_ == State::kBody || state_ == State::kLinger ? kBodyBytes
                      : state_ == State::kExchange                       ? kWatchBytes
                                                                         : kHeadBytes;
  if (scratch_.capacity() > 2 * size) Release(scratch_);
  scratch_.resize(size);
  reading_ = true;
  setup_.transport->Read(scratch_.data(), size, [self = shared_from_this()](auto error, size_t n) {
    self->OnRead(error, n);
  });
}

void Connection::OnRead(boost::system::error_code error, size_t bytes) {
  reading_ = false;
  if (error) return Close();
  if (state_ != State::kLinger) {
    in_.append(scratch_, 0, bytes);
    Consume();
  }
  Read();
}

void Connection::Consume() {
  size_t offset = 0;
  while (state_ == State::kIdle || state_ == State::kHead || state_ == State::kBody) {
    if (offset == in_.size() && state_ != State::kBody) break;
    // Replies that nobody reads must not pile up: OnWritten comes back here.
    if (state_ == State::kIdle && (close_after_write_ || queued_bytes() > kPipelineBytes)) break;
    if (!parser_) parser_.emplace(setup_.limits->parser);
    if (state_ == State::kIdle) Enter(State::kHead);
    size_t taken = 0;
    const auto step = parser_->Feed(std::string_view(in_).substr(offset), taken);
    offset += taken;
    if (step == RequestParser::Step::kNeedMore) break;
    if (step == RequestParser::Step::kFailed) {
      RefuseAndClose(
          setup_.application->Refuse(parser_->failure().status, parser_->failure().message));
    } else if (step == RequestParser::Step::kHead) {
      if (!OnHead()) break;
    } else {
      in_.erase(0, std::exchange(offset, 0));
      OnBody();
    }
  }
  in_.erase(0, offset);
  if (in_.empty()) Release(in_);
}

bool Connection::OnHead() {
  RequestHead head = parser_->head();
  head.peer = setup_.peer;
  keep_alive_ = parser_->keep_alive() && !retired_;
  chunked_ = head.minor_version == 1;
  head_only_ = head.method == "HEAD";
  auto verdict = setup_.application->Begin(head, *setup_.loop);
  if (auto* refusal = std::get_if<Response>(&verdict)) {
    // A body that is not read makes the connection useless; none at all leaves it good.
    size_t none = 0;
    if (parser_->Feed({}, none) == RequestParser::Step::kDone) {
      parser_.reset();
      Enter(State::kExchange);
      Send(std::move(*refusal));
      return true;
    }
    RefuseAndClose(std::move(*refusal));
    return false;
  }
  exchange_ = std::get<std::shared_ptr<Exchange>>(std::move(verdict));
  Enter(State::kBody);
  if (parser_->expects_continue()) {
    out_ += "HTTP/1.1 100 Continue\r\n\r\n";
    Flush();
  }
  return true;
}

void Connection::OnBody() {
  std::string body = parser_->TakeBody();
  parser_.reset();
  Enter(State::kExchange);
  const auto exchange = exchange_;
  exchange->Start(std::move(body), shared_from_this());
}

void Connection::RefuseAndClose(Response response) {
  if (auto exchange = std::exchange(exchange_, nullptr)) exchange->OnGone();
  const bool head_only = parser_ && parser_->head().method == "HEAD";
  parser_.reset();
  Release(in_);
  out_ += Serialize(response, false);
  if (head_only) out_.resize(out_.size() - response.body.size());
  Enter(State::kExchange);  // no timer but the write's until the refusal is out
  close_after_write_ = true;
  Flush();
}

void Connection::Send(Response response) {
  if (state_ == State::kClosed) return;
  const bool keep_alive = keep_alive_ && !retired_;
  std::string bytes = Serialize(response, keep_alive);
  if (head_only_) bytes.resize(bytes.size() - response.body.size());
  out_ += bytes;
  FinishReply(keep_alive);
}

void Connection::BeginStream(Response head) {
  if (state_ == State::kClosed) return;
  keep_alive_ = keep_alive_ && chunked_ && !retired_;
  out_ += SerializeStreamHead(head, chunked_, keep_alive_);
}

void Connection::Write(std::string_view bytes) {
  if (state_ == State::kClosed || too_slow_ || bytes.empty()) return;
  if (chunked_) {
    absl::StrAppend(&out_, absl::Hex(bytes.size()), "\r\n",
                    absl::string_view(bytes.data(), bytes.size()), "\r\n");
  } else {
    out_ += bytes;
  }
  if (queued_bytes() > setup_.limits->queue_bytes) return CutSlowReader();
  Flush();
}

void Connection::CutSlowReader() {
  if (std::exchange(too_slow_, true)) return;
  setup_.application->OnSlowReader();
  // Not from inside the exchange's own call.
  setup_.loop->Post([self = shared_from_this()] { self->Close(); });
}

void Connection::End(bool keep_alive) {
  if (state_ == State::kClosed) return;
  if (chunked_) out_ += "0\r\n\r\n";
  FinishReply(keep_alive && keep_alive_);
}

void Connection::FinishReply(bool keep_alive) {
  // It is the exchange that calls us: it goes when its own stack is unwound.
  if (exchange_) setup_.loop->Post([ended = std::move(exchange_)] {});
  exchange_.reset();
  if (!keep_alive || retired_) {
    close_after_write_ = true;
    Flush();
    return;
  }
  Enter(State::kIdle);
  Flush();
  // The next request may already wait. Posted, so that pipelining cannot grow the stack.
  setup_.loop->Post([self = shared_from_this()] {
    if (self->state_ != State::kIdle) return;
    self->Consume();
    self->Read();
  });
}

void Connection::Linger() {
  // Closing with unread bytes would send a reset that can overtake the reply.
  setup_.transport->ShutdownSend();
  Enter(State::kLinger);
  Read();
}

void Connection::Flush() {
  if (!writing_.empty() || out_.empty() || state_ == State::kClosed) return;
  writing_.swap(out_);
  written_ = 0;
  WriteSlice();
}

void Connection::WriteSlice() {
  const size_t size = std::min(writing_.size() - written_, kSliceBytes);
  write_timer_->Start(absl::Milliseconds(setup_.limits->write_timeout_ms), [this] {
    if (!std::exchange(too_slow_, true)) setup_.application->OnSlowReader();
    Close();
  });
  setup_.transport->Write(
      writing_.data() + written_, size,
      [self = shared_from_this()](auto error, size_t bytes) { self->OnWritten(error, bytes); });
}

void Connection::OnWritten(boost::system::error_code error, size_t bytes) {
  write_timer_->Cancel();
  if (state_ == State::kClosed) return;
  if (error) return Close();
  written_ += bytes;
  if (written_ < writing_.size()) return WriteSlice();
  if (writing_.capacity() > kHeadBytes) Release(writing_);
  writing_.clear();
  written_ = 0;
  if (!out_.empty()) return Flush();
  if (close_after_write_) {
    if (state_ != State::kLinger) Linger();
  } else if (const auto exchange = exchange_; exchange && state_ == State::kExchange) {
    exchange->OnDrained();
  } else if (state_ == State::kIdle && !in_.empty()) {
    Consume();
    Read();
  }
}

}  // namespace behemoth::gateway
