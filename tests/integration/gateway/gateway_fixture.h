// The whole gateway in this process, in front of a token source: real sockets, real gRPC, port 0.
#pragma once

#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "gateway/gateway.h"
#include "tests/bench/gateway/token_source.h"
#include "tests/integration/gateway/http_client.h"

namespace behemoth::gateway {

using bench::TokenSource;
using bench::TokenSourceConfig;
using nlohmann::json;

inline constexpr char kChatPath[] = "/v1/chat/completions";

inline std::string Chat(int tokens, bool stream, const json& more = json::object()) {
  json body = {{"model", "source"},
               {"messages", {{{"role", "user"}, {"content", "Who art thou?"}}}},
               {"max_tokens", tokens},
               {"stream", stream}};
  body.update(more);
  return body.dump();
}

inline std::string Post(const std::string& body, const std::string& headers = "") {
  return absl::StrCat("POST ", kChatPath, " HTTP/1.1\r\nHost: t\r\n", headers,
                      "Content-Length: ", body.size(), "\r\n\r\n", body);
}

template <typename Condition>
bool Until(Condition condition, absl::Duration limit = absl::Seconds(10)) {
  const absl::Time end = absl::Now() + limit;
  while (!condition()) {
    if (absl::Now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

class GatewayTest : public ::testing::Test {
 protected:
  // `workers_at`: by what host name the gateway is to find the source as its worker.
  void Start(TokenSourceConfig source = {}, Config config = {},
             const std::string& workers_at = "127.0.0.1") {
    source_ = std::make_unique<TokenSource>(source);
    config.tokenizer = source_->address();
    config.workers = {workers_at + source_->address().substr(source_->address().rfind(':'))};
    config.http.listen = config.metrics_listen = "127.0.0.1:0";
    config.threads = 2;
    auto gateway = Gateway::Start(config);
    ASSERT_TRUE(gateway.ok()) << gateway.status();
    gateway_ = *std::move(gateway);
    port_ = gateway_->port();
    ASSERT_TRUE(Until([&] { return Fetch(port_, "GET", "/health").status == 200; }));
  }
  HttpReply Ask(const std::string& body, const std::string& headers = "") {
    return Fetch(port_, "POST", kChatPath, headers, body);
  }
  double Metric(const std::string& name) {
    const std::string text = Fetch(gateway_->metrics_port(), "GET", "/metrics").body;
    const size_t at = text.find("\n" + name + " ");
    return at == std::string::npos ? 0 : std::stod(text.substr(at + name.size() + 2));
  }
  static json ErrorOf(const HttpReply& reply) {
    const json body = json::parse(reply.body, nullptr, false);
    EXPECT_TRUE(body.is_object() && body.contains("error")) << reply.body;
    return body.value("error", json::object());
  }

  std::unique_ptr<TokenSource> source_;
  std::unique_ptr<Gateway> gateway_;
  int port_ = 0;
};

}  // namespace behemoth::gateway
