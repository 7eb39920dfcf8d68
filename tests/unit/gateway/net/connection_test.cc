#include "gateway/http/connection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "tests/unit/gateway/net/fake_loop.h"

namespace behemoth::gateway {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

// The client's side of a socket. `window`: how many bytes the peer still takes.
struct Wire {
  std::string to_server, to_client;
  size_t window = SIZE_MAX;
  bool closed = false, send_shut = false, peer_gone = false;
};

class FakeTransport final : public Transport {
 public:
  FakeTransport(FakeLoop& loop, Wire& wire) : loop_(loop), wire_(wire) {}
  void Handshake(Done done) override {
    loop_.Post([done = std::move(done)]() mutable { done({}, 0); });
  }
  void Read(char* to, size_t size, Done done) override {
    to_ = to;
    room_ = size;
    read_ = std::move(done);
  }
  void Write(const char* from, size_t size, Done done) override {
    from_ = from;
    left_ = left_of_ = size;
    write_ = std::move(done);
  }
  void ShutdownSend() override { wire_.send_shut = true; }
  void Close() override { wire_.closed = true; }

  // One round of what a kernel would do; true if anything moved.
  bool Move() {
    const auto aborted = boost::asio::error::operation_aborted;
    if (wire_.closed) {
      if (read_) return std::exchange(read_, nullptr)(aborted, 0), true;
      if (write_) return std::exchange(write_, nullptr)(aborted, 0), true;
      return false;
    }
    bool moved = false;
    if (read_ && (!wire_.to_server.empty() || wire_.peer_gone)) {
      const size_t bytes = std::min(room_, wire_.to_server.size());
      std::memcpy(to_, wire_.to_server.data(), bytes);
      wire_.to_server.erase(0, bytes);
      std::exchange(read_, nullptr)(
          bytes > 0 ? boost::system::error_code() : boost::asio::error::eof, bytes);
      moved = true;
    }
    if (write_ && wire_.window > 0) {
      const size_t bytes = std::min(left_, wire_.window);
      wire_.to_client.append(from_, bytes);
      from_ += bytes;
      left_ -= bytes;
      if (wire_.window != SIZE_MAX) wire_.window -= bytes;
      if (left_ == 0) std::exchange(write_, nullptr)({}, left_of_);
      moved = true;
    }
    return moved;
  }

 private:
  FakeLoop& loop_;
  Wire& wire_;
  Done read_, write_;
  char* to_ = nullptr;
  const char* from_ = nullptr;
  size_t room_ = 0, left_ = 0, left_of_ = 0;
};

struct FakeApplication final : Application {
  struct FakeExchange final : Exchange {
    explicit FakeExchange(FakeApplication* a) : app(a) {}
    ~FakeExchange() override { ++app->released; }
    void Start(std::string b, std::shared_ptr<Responder> r) override {
      app->bodies.push_back(std::move(b));
      app->responder = std::move(r);
      if (app->answer_at_once) app->responder->Send({.body = "{}"});
      alive_after_reply = true;  // a write into freed memory, were it released inside Send
    }
    void OnGone() override { ++app->gone; }
    void OnDrained() override { ++app->drained; }
    FakeApplication* const app;
    bool alive_after_reply = false;
  };

  Verdict Begin(const RequestHead& head, Loop&) override {
    paths.push_back(head.path);
    if (head.method != "POST") return Response{.body = R"({"ok":1})"};
    if (full) return Response{.status = 503};
    return std::make_shared<FakeExchange>(this);
  }
  Response Refuse(int status, std::string_view) override { return {.status = status}; }
  void OnSlowReader() override { ++slow; }
  void OnConnections(int change) override { open += change; }

  std::vector<std::string> paths, bodies;
  std::shared_ptr<Responder> responder;
  bool full = false, answer_at_once = true;
  int gone = 0, drained = 0, slow = 0, open = 0, released = 0;
};

class ConnectionTest : public ::testing::Test {
 protected:
  ConnectionTest() {
    auto transport = std::make_unique<FakeTransport>(loop_, wire_);
    transport_ = transport.get();
    connection_ = std::make_shared<Connection>(
        Connection::Setup{.transport = std::move(transport),
                          .peer = "test",
                          .loop = &loop_,
                          .application = &application_,
                          .limits = &limits_,
                          .on_closed = [this](Connection*) { ++closed_; }});
    connection_->Start();
    Settle();
  }
  ~ConnectionTest() override {
    connection_->Close();
    Settle();
    EXPECT_EQ(closed_, 1);
    EXPECT_EQ(application_.open, 0);
  }

  void Settle() {
    do {
      loop_.Run();
    } while (transport_->Move());
  }
  std::string Say(const std::string& bytes) {
    wire_.to_server += bytes;
    Settle();
    return std::exchange(wire_.to_client, "");
  }
  void Wait(int ms) {
    loop_.Advance(absl::Milliseconds(ms));
    Settle();
  }
  static int Count(const std::string& text, const std::string& what) {
    int count = 0;
    for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1))
      ++count;
    return count;
  }

  HttpLimits limits_;
  FakeLoop loop_;
  Wire wire_;
  FakeApplication application_;
  FakeTransport* transport_ = nullptr;
  std::shared_ptr<Connection> connection_;
  int closed_ = 0;
};

const std::string kGet = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
const std::string kPost = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}";

TEST_F(ConnectionTest, AnswersPipelinedRequestsInOrderAndKeepsTheConnection) {
  const std::string got = Say("\r\n" + kGet + kPost + kGet);
  EXPECT_EQ(Count(got, "HTTP/1.1 200 OK"), 3);
  EXPECT_EQ(Count(got, "Connection: keep-alive"), 3);
  EXPECT_THAT(application_.paths, ::testing::ElementsAre("/health", "/x", "/health"));
  EXPECT_EQ(application_.released, 1);
  EXPECT_FALSE(wire_.closed);
}

TEST_F(ConnectionTest, RepliesThatNobodyReadsStopThePipeline) {
  wire_.window = 0;
  std::string many;
  for (int i = 0; i < 5000; ++i) many += kGet;
  Say(many);
  EXPECT_LT(connection_->queued_bytes(), 70'000u);
  EXPECT_GT(wire_.to_server.size(), 50'000u);  // not even read
  wire_.window = SIZE_MAX;
  EXPECT_EQ(Count(Say(""), "HTTP/1.1 200 OK"), 5000);
}

TEST_F(ConnectionTest, HeadHasNoBodyAndHttp10Closes) {
  const std::string head = Say("HEAD /health HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(head, HasSubstr("Content-Length: 8"));
  EXPECT_TRUE(head.ends_with("\r\n\r\n"));
  EXPECT_THAT(Say("GET / HTTP/1.0\r\n\r\n"), HasSubstr("Connection: close"));
  EXPECT_TRUE(wire_.send_shut);
}

TEST_F(ConnectionTest, ContinuesOnlyWhatItWillTake) {
  const std::string head =
      "POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
  EXPECT_EQ(Say(head), "HTTP/1.1 100 Continue\r\n\r\n");
  EXPECT_THAT(Say("{}"), StartsWith("HTTP/1.1 200 OK"));
  application_.full = true;
  const std::string refused = Say(head);
  EXPECT_THAT(refused, StartsWith("HTTP/1.1 503"));
  EXPECT_THAT(refused, HasSubstr("Connection: close"));
}

TEST_F(ConnectionTest, RefusesBeforeTheBodyAndNeverReadsItAsARequest) {
  application_.full = true;
  const std::string got =
      Say("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n" + kGet + kGet);
  EXPECT_EQ(Count(got, "HTTP/1.1"), 1);
  EXPECT_EQ(application_.paths.size(), 1u);
  Wait(limits_.linger_timeout_ms);
  EXPECT_TRUE(wire_.closed);
}

TEST_F(ConnectionTest, AMalformedRequestIsAnsweredOnceAndEndsTheConnection) {
  const std::string got = Say("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + kGet);
  EXPECT_THAT(got, StartsWith("HTTP/1.1 400"));
  EXPECT_EQ(Count(got, "HTTP/1.1"), 1);
}

TEST_F(ConnectionTest, SlowHeadsAndBodiesRunOutOfTime) {
  for (int i = 0; i < 20 && !wire_.closed && wire_.to_client.empty(); ++i) {
    wire_.to_server += "G";
    Settle();
    Wait(1000);
  }
  EXPECT_THAT(wire_.to_client, StartsWith("HTTP/1.1 408"));
  EXPECT_TRUE(application_.paths.empty());
}

TEST_F(ConnectionTest, ABodyThatStallsReturnsItsTicket) {
  Say("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{");
  Wait(limits_.body_timeout_ms);
  EXPECT_THAT(wire_.to_client, StartsWith("HTTP/1.1 408"));
  EXPECT_EQ(application_.gone, 1);
  EXPECT_EQ(application_.released, 1);
}

TEST_F(ConnectionTest, IdleConnectionsEnd) {
  Say(kGet);
  Wait(limits_.idle_timeout_ms);
  EXPECT_TRUE(wire_.closed);
}

TEST_F(ConnectionTest, AClientThatGoesAwayIsNoticedDuringAStream) {
  application_.answer_at_once = false;
  Say(kPost);
  application_.responder->BeginStream({.content_type = "text/event-stream"});
  application_.responder->Write("data: 1\n\n");
  EXPECT_THAT(Say(""), HasSubstr("9\r\ndata: 1\n\n\r\n"));
  wire_.peer_gone = true;
  Settle();
  EXPECT_EQ(application_.gone, 1);
  EXPECT_TRUE(wire_.closed);
  application_.responder->Write("into nothing");
  application_.responder->End(true);
}

TEST_F(ConnectionTest, AStreamThatNobodyReadsIsBoundedAndCountedOnce) {
  application_.answer_at_once = false;
  Say(kPost);
  wire_.window = 0;
  const auto responder = application_.responder;
  responder->BeginStream({});
  const std::string event(1 << 20, 'x');
  for (int i = 0; i < 8; ++i) responder->Write(event);
  EXPECT_LT(connection_->queued_bytes(), limits_.queue_bytes + (2u << 20));
  Settle();
  EXPECT_EQ(application_.slow, 1);
  EXPECT_EQ(application_.gone, 1);
  EXPECT_TRUE(wire_.closed);
}

TEST_F(ConnectionTest, ASliceThatDoesNotLeaveInTimeCutsTheReader) {
  application_.answer_at_once = false;
  Say(kPost);
  wire_.window = 0;
  application_.responder->BeginStream({});
  application_.responder->Write("data: 1\n\n");
  Settle();
  Wait(limits_.write_timeout_ms);
  EXPECT_EQ(application_.slow, 1);
  EXPECT_EQ(application_.gone, 1);
}

TEST_F(ConnectionTest, ALargeReplyOverASlowLineMayTakeLongerThanOneSlice) {
  application_.answer_at_once = false;
  Say(kPost);
  wire_.window = 0;
  application_.responder->Send({.body = std::string(1 << 20, 'x')});
  for (int i = 0; i < 20; ++i) {
    wire_.window = 64 << 10;
    Settle();
    Wait(limits_.write_timeout_ms - 1);
  }
  EXPECT_EQ(application_.slow, 0);
  EXPECT_EQ(Count(wire_.to_client, "xxxxxxxxxxxxxxxx"), (1 << 20) - 15);
}

TEST_F(ConnectionTest, RetiringNeverCutsTheLastReply) {
  wire_.window = 10;
  Say(kGet);
  connection_->Retire();
  EXPECT_FALSE(wire_.closed);
  wire_.window = SIZE_MAX;
  Settle();
  EXPECT_TRUE(wire_.to_client.ends_with(R"({"ok":1})"));
  EXPECT_TRUE(wire_.send_shut);
}

TEST_F(ConnectionTest, RetiringEndsTheStreamInWorkWithTheConnection) {
  application_.answer_at_once = false;
  Say(kPost);
  connection_->Retire();
  application_.responder->BeginStream({});
  application_.responder->Write("data: 1\n\n");
  application_.responder->End(true);
  const std::string got = Say("");
  EXPECT_THAT(got, HasSubstr("Connection: close"));
  EXPECT_TRUE(got.ends_with("0\r\n\r\n"));
  EXPECT_TRUE(wire_.send_shut);
}

TEST_F(ConnectionTest, AFreshConnectionEndsWhenNothingIsAcceptedAnyMore) {
  connection_->RetireUnlessBusy();
  EXPECT_TRUE(wire_.closed);
}

TEST_F(ConnectionTest, TellsTheExchangeWhenTheSocketHasTakenAll) {
  application_.answer_at_once = false;
  Say(kPost);
  wire_.window = 5;
  application_.responder->BeginStream({});
  application_.responder->Write("data: 1\n\n");
  Settle();
  EXPECT_EQ(application_.drained, 0);
  wire_.window = SIZE_MAX;
  Settle();
  EXPECT_EQ(application_.drained, 1);
}

}  // namespace
}  // namespace behemoth::gateway
