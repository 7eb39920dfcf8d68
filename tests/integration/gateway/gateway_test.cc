// What a client sees, request by request.
#include <gmock/gmock.h>

#include "tests/integration/gateway/gateway_fixture.h"

namespace behemoth::gateway {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST_F(GatewayTest, AStreamAndAWholeReplyCarryTheSameText) {
  Start();
  const json whole = json::parse(Ask(Chat(3, false, {{"n", 2}})).body);
  EXPECT_EQ(whole["choices"][0]["message"]["content"], "w3 w4 w5");
  EXPECT_EQ(whole["choices"][1]["message"]["content"], "w4 w5 w6");
  EXPECT_EQ(whole["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(whole["usage"]["completion_tokens"], 6);
  const std::string stream = Ask(Chat(3, true)).body;
  for (const char* part : {"\"w3\"", "\" w4\"", "\" w5\"", "\"length\"", "data: [DONE]\n\n"}) {
    EXPECT_THAT(stream, HasSubstr(part));
  }
}

TEST_F(GatewayTest, EveryRouteButTheListedOnesNeedsAKey) {
  Config config;
  config.api_keys = {"sk-right"};
  Start({}, config);
  const std::string json_type = "Content-Type: application/json\r\n";
  std::string first;
  for (const char* route :
       {"POST /v1/chat/completions", "POST /v1/completions", "POST /v1/chat/completions/render",
        "POST /tokenize", "POST /v1/tokenize", "POST /detokenize", "POST /v1/detokenize",
        "GET /v1/models", "GET /v1/models/source", "GET /v1/thinking/presets",
        "POST /v1/requests/x/cancel", "POST /v1/requests/x/end_thinking"}) {
    const std::string method(route, std::string_view(route).find(' '));
    const std::string path = route + method.size() + 1;
    for (const char* key : {"", "Authorization: Bearer sk-wrong\r\n", "Authorization: sk-right\r\n",
                            "Authorization: Bearer SK-RIGHT\r\n", "X-Api-Key: \r\n",
                            "Authorization: Bearer sk-right\r\nAuthorization: Bearer sk-right\r\n",
                            "Host: /v1/health\r\nX-Original-URL: /health\r\n"}) {
      const HttpReply reply =
          Fetch(port_, method, path, json_type + key, method == "POST" ? "{}" : "");
      if (std::string(key).substr(0, 4) == "Host") {
        EXPECT_EQ(reply.status, 400) << route;  // two Host headers: not even looked at
        continue;
      }
      EXPECT_EQ(reply.status, 401) << route << " " << key;
      EXPECT_THAT(reply.head, HasSubstr("WWW-Authenticate: Bearer"));
      EXPECT_EQ(ErrorOf(reply)["type"], "AuthenticationError");
      EXPECT_THAT(reply.body, Not(HasSubstr("sk-")));
    }
    EXPECT_NE(Fetch(port_, method, path, json_type + "Authorization: Bearer sk-right\r\n",
                    method == "POST" ? "{}" : "")
                  .status,
              401)
        << route;
  }
  for (const char* path : {"/health", "/live", "/ping", "/version", "/load", "/"}) {
    EXPECT_EQ(Fetch(port_, "GET", path).status, 200) << path;
  }
  for (const char* path :
       {"//v1/models", "/V1/models", "/v1/models.", "/%761/models", "/v1/./models",
        "http://t/v1/models", "/v1/models/../models", "/metrics"}) {
    const int status = Fetch(port_, "GET", path).status;
    EXPECT_TRUE(status == 404 || status == 401) << path << " " << status;
  }
}

TEST_F(GatewayTest, RoutingRefusesInTheErrorShape) {
  Start();
  const HttpReply nothing = Fetch(port_, "GET", "/nothing");
  EXPECT_EQ(nothing.status, 404);
  EXPECT_EQ(ErrorOf(nothing)["code"], 404);
  for (const char* method : {"GET", "DELETE", "OPTIONS", "BREW"}) {
    const HttpReply wrong = Fetch(port_, method, kChatPath);
    EXPECT_EQ(wrong.status, 405) << method;
    EXPECT_THAT(wrong.head, HasSubstr("Allow: POST\r\n"));
  }
  EXPECT_THAT(Fetch(port_, "POST", "/health").head, HasSubstr("Allow: GET, HEAD\r\n"));
  const HttpReply head = Fetch(port_, "HEAD", "/v1/models");
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.body, "");
  EXPECT_EQ(Ask(Chat(1, false), "Content-Encoding: gzip\r\n").status, 415);
  EXPECT_EQ(Ask(Chat(1, false), "Content-Type: text/plain\r\n").status, 415);
  EXPECT_EQ(Ask(Chat(1, false), "Content-Type: Application/JSON; charset=utf-8\r\n").status, 200);
  const HttpReply unknown = Ask(Chat(1, false, {{"model", "other"}}));
  EXPECT_EQ(unknown.status, 404);
  EXPECT_EQ(ErrorOf(unknown)["message"], "The model `other` does not exist.");
}

TEST_F(GatewayTest, RequestIdsAreEchoedOrReplacedAndNeverMixRequests) {
  TokenSourceConfig slow{.interval = absl::Milliseconds(5)};
  Start(slow);
  HttpClient one(port_), two(port_);
  one.Send(Post(Chat(2, true), "X-Request-Id: same.id-1\r\n"));
  two.Send(Post(Chat(4, true), "X-Request-Id: same.id-1\r\n"));
  const std::string first = one.ReadTo("[DONE]"), second = two.ReadTo("[DONE]");
  EXPECT_THAT(first, HasSubstr("X-Request-Id: same.id-1\r\n"));
  EXPECT_THAT(first, Not(HasSubstr("w5")));
  EXPECT_THAT(second, HasSubstr("w6"));
  for (const std::string& bad : {std::string(200, 'x'), std::string("a b"), std::string("a\"}")}) {
    const HttpReply reply = Ask(Chat(1, false), "X-Request-Id: " + bad + "\r\n");
    EXPECT_THAT(reply.head, HasSubstr("X-Request-Id: chatcmpl-"));
    EXPECT_THAT(reply.head, Not(HasSubstr(bad)));
  }
}

TEST_F(GatewayTest, WorkerErrorsBeforeTheFirstTokenAreStatuses) {
  Start();
  for (const auto& [code, http] : {std::pair{14, 503}, {8, 503}, {3, 400}, {13, 500}, {4, 504}}) {
    source_->FailGenerate(code);
    HttpReply reply;
    // A failed worker is left alone for two seconds: ask when it is usable.
    ASSERT_TRUE(Until([&] { return Fetch(port_, "GET", "/health").status == 200; }));
    reply = Ask(Chat(2, true));
    EXPECT_EQ(reply.status, http) << code;
    EXPECT_EQ(ErrorOf(reply)["code"], http);
    if (http == 503) {
      EXPECT_THAT(reply.head, HasSubstr("Retry-After: "));
    }
    if (http == 500 || code == 14) {
      EXPECT_THAT(reply.body, Not(HasSubstr("10.1.2")));
    }
  }
}

TEST_F(GatewayTest, WorkerErrorsAfterTheFirstTokenAreEventsWithoutDone) {
  Start();
  source_->FailAfter(13, 2);
  const HttpReply reply = Ask(Chat(5, true));
  EXPECT_EQ(reply.status, 200);
  EXPECT_THAT(reply.body, HasSubstr("w3"));
  EXPECT_THAT(reply.body, HasSubstr(R"(data: {"error":{"message":"internal error")"));
  EXPECT_THAT(reply.body, Not(HasSubstr("[DONE]")));
  EXPECT_THAT(reply.body, Not(HasSubstr(R"("finish_reason":")")));
}

TEST_F(GatewayTest, TheTokenizerAwayIs503AndBackServes) {
  Start();
  source_->SetTokenizerUp(false);
  const HttpReply reply = Ask(Chat(1, false));
  EXPECT_EQ(reply.status, 503);
  EXPECT_THAT(reply.body, Not(HasSubstr("10.1.2")));
  EXPECT_TRUE(Until([&] { return Fetch(port_, "GET", "/health").status == 503; }));
  source_->SetTokenizerUp(true);
  EXPECT_TRUE(Until([&] { return Ask(Chat(1, false)).status == 200; }));
}

TEST_F(GatewayTest, AClientThatLeavesCancelsOnce) {
  Start({.stall_after = 2});
  {
    HttpClient client(port_);
    client.Send(Post(Chat(9, true)));
    client.ReadTo("w4");
  }
  EXPECT_TRUE(Until([&] { return source_->streams_open() == 0; }, absl::Seconds(2)));
  EXPECT_EQ(source_->streams_cancelled(), 1);
  EXPECT_TRUE(Until([&] { return Metric("behemoth_requests_in_flight") == 0; }));
  EXPECT_EQ(Metric(R"(behemoth_cancelled_total{stage="decoding"})"), 1);
}

TEST_F(GatewayTest, AFullServiceRefusesBeforeTheBody) {
  Config config;
  config.admission.max_in_flight = 1;
  Start({.stall_after = 1}, config);
  HttpClient holder(port_), late(port_);
  holder.Send(Post(Chat(9, true)));
  holder.ReadTo("w3");
  late.Send(
      absl::StrCat("POST ", kChatPath,
                   " HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 8000000\r\n"
                   "\r\n"));
  const std::string reply = late.ReadTo("\r\n\r\n");
  EXPECT_THAT(reply, HasSubstr("HTTP/1.1 503"));
  EXPECT_THAT(reply, HasSubstr("Retry-After: "));
  holder.Close();
  EXPECT_TRUE(Until([&] { return Metric("behemoth_requests_in_flight") == 0; }));
  EXPECT_EQ(Metric(R"(behemoth_rejected_total{reason="full"})"), 1);
}

TEST_F(GatewayTest, ADeadlineIs504OrAnErrorEvent) {
  Config config;
  config.request_timeout_s = 1;
  Start({.stall_after = 1}, config);
  EXPECT_EQ(Ask(Chat(9, false)).status, 504);
  const HttpReply stream = Ask(Chat(9, true));
  EXPECT_THAT(stream.body, HasSubstr(R"("code":504)"));
  EXPECT_THAT(stream.body, Not(HasSubstr("[DONE]")));
  EXPECT_TRUE(Until([&] { return source_->streams_open() == 0; }));
}

// One reader stops reading; its worker stream stops too, it is cut and counted, and another client
// is served all along.
TEST_F(GatewayTest, AReaderThatStopsIsBoundedCutAndCounted) {
  Config config;
  config.http.limits.write_timeout_ms = 700;
  Start({}, config);
  HttpClient slow(port_, 4096);
  slow.Send(Post(Chat(1'000'000, true)));
  slow.ReadTo("w4");
  EXPECT_EQ(Ask(Chat(50, false)).status, 200);
  EXPECT_TRUE(Until([&] { return Metric("behemoth_stream_slow_reader_total") == 1; }));
  EXPECT_TRUE(Until([&] { return source_->streams_open() == 0; }));
  EXPECT_LT(Metric("behemoth_generation_tokens_total"), 200'000);  // of the million
  EXPECT_EQ(Ask(Chat(50, false)).status, 200);
}

TEST_F(GatewayTest, AThinkingBudgetForcesTheBlockToClose) {
  Start({.interval = absl::Milliseconds(1)});
  const HttpReply reply =
      Ask(Chat(40, true, {{"thinking", {{"preset", "creative"}, {"budget_tokens", 5}}}}));
  EXPECT_EQ(reply.status, 200);
  EXPECT_TRUE(Until([&] { return source_->controls() == 1; }));
  EXPECT_FALSE(source_->forced_ids().empty());
}

TEST_F(GatewayTest, CancelReachesOnlyTheCallersRequest) {
  Config config;
  config.api_keys = {"a", "b"};
  Start({.stall_after = 1}, config);
  HttpClient client(port_);
  client.Send(Post(Chat(9, true), "Authorization: Bearer a\r\nX-Request-Id: mine\r\n"));
  client.ReadTo("w3");
  const std::string path = "/v1/requests/mine/cancel";
  EXPECT_EQ(Fetch(port_, "POST", path, "Authorization: Bearer b\r\n").status, 404);
  EXPECT_EQ(source_->controls(), 0);
  EXPECT_EQ(Fetch(port_, "POST", path, "Authorization: Bearer a\r\n").status, 200);
  EXPECT_TRUE(Until([&] { return source_->controls() == 1; }));
}

TEST_F(GatewayTest, DrainAnswersWhatIsNewAndEndsWithTheLastStream) {
  Start({.interval = absl::Milliseconds(5)});
  HttpClient client(port_), idle(port_);
  client.Send(Post(Chat(100, true)));
  client.ReadTo("w3");
  bool finished = false;
  std::thread drain([&] { finished = gateway_->Drain(); });
  EXPECT_TRUE(Until([&] { return Fetch(port_, "GET", "/health").status == 503; }));
  EXPECT_EQ(Ask(Chat(1, false)).status, 503);
  EXPECT_EQ(Fetch(port_, "GET", "/live").status, 200);
  EXPECT_THAT(client.ReadToEnd(), HasSubstr("[DONE]"));
  drain.join();
  EXPECT_TRUE(finished);
  EXPECT_FALSE(HttpClient(port_).connected());
}

TEST_F(GatewayTest, EndsCleanlyWithStreamsOpen) {
  Start({.stall_after = 1});
  std::vector<std::unique_ptr<HttpClient>> clients;
  for (int i = 0; i < 50; ++i) {
    clients.push_back(std::make_unique<HttpClient>(port_));
    clients.back()->Send(Post(Chat(9, true)));
    clients.back()->ReadTo("w3");
  }
  gateway_.reset();
  EXPECT_TRUE(Until([&] { return source_->streams_open() == 0; }));
  for (auto& client : clients) {
    client->ReadToEnd();
    EXPECT_TRUE(client->ended());
  }
}

}  // namespace
}  // namespace behemoth::gateway
