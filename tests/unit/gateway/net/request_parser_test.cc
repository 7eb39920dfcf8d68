#include "gateway/http/request_parser.h"

#include <gtest/gtest.h>

#include <string>

namespace behemoth::gateway {
namespace {

using Step = RequestParser::Step;

struct Parsed {
  Step step = Step::kNeedMore;
  int status = 0;  // of a failure
  RequestHead head;
  std::string body, rest;
};

// Feeds `bytes` in pieces of `cut`; what is not consumed is offered again, as a connection does.
Parsed Parse(const std::string& bytes, size_t cut, const ParserLimits& limits = {}) {
  RequestParser parser(limits);
  Parsed out;
  std::string pending;
  size_t fed = 0;
  while (true) {
    size_t taken = 0;
    out.step = parser.Feed(pending, taken);
    pending.erase(0, taken);
    if (out.step == Step::kHead) {
      out.head = parser.head();
    } else if (out.step != Step::kNeedMore) {
      break;
    } else if (fed == bytes.size()) {
      break;
    } else {
      const std::string piece = bytes.substr(fed, cut);
      fed += piece.size();
      pending += piece;
    }
  }
  if (out.step == Step::kFailed) out.status = parser.failure().status;
  if (out.step == Step::kDone) out.body = parser.TakeBody();
  out.rest = pending + bytes.substr(fed);
  return out;
}

int StatusOf(const std::string& bytes, const ParserLimits& limits = {}) {
  const Parsed whole = Parse(bytes, bytes.size(), limits);
  const Parsed cut = Parse(bytes, 1, limits);
  EXPECT_EQ(whole.status, cut.status) << bytes.substr(0, 200);
  EXPECT_EQ(whole.step, cut.step) << bytes.substr(0, 200);
  return whole.step == Step::kDone ? 200 : whole.status;
}

std::string Post(const std::string& headers, const std::string& body = "") {
  return "POST /v1/x HTTP/1.1\r\nHost: a\r\n" + headers + "\r\n" + body;
}

TEST(RequestParserTest, EveryCutOfARequestGivesTheSameValues) {
  const std::string bytes =
      "POST /v1/models/a%2Fb?x=1&y=/v1 HTTP/1.1\r\nHost: a\r\nX-One: 1\r\nContent-Length: 5\r\n\r\n"
      "helloGET / HTTP/1.1\r\n";
  for (size_t cut = 1; cut <= bytes.size(); ++cut) {
    const Parsed parsed = Parse(bytes, cut);
    ASSERT_EQ(parsed.step, Step::kDone) << cut;
    EXPECT_EQ(parsed.head.path, "/v1/models/a%2Fb");  // raw: routing never sees a decoded path
    EXPECT_EQ(parsed.head.query, "x=1&y=/v1");
    EXPECT_EQ(parsed.head.Find("x-ONE"), "1");
    EXPECT_EQ(parsed.body, "hello");
    EXPECT_EQ(parsed.rest, "GET / HTTP/1.1\r\n");  // the next request, untouched
  }
}

TEST(RequestParserTest, ChunkedBodiesAreJoinedAndTrailersDropped) {
  const Parsed parsed = Parse(
      Post("Transfer-Encoding: chunked\r\n", "5;ext=1\r\nhello\r\n1\r\n!\r\n0\r\nX: y\r\n\r\nrest"),
      3);
  ASSERT_EQ(parsed.step, Step::kDone);
  EXPECT_EQ(parsed.body, "hello!");
  EXPECT_EQ(parsed.rest, "rest");
  EXPECT_EQ(StatusOf(Post("Transfer-Encoding: chunked\r\n", "0\r\nContent-Length: 9\r\n\r\n")),
            400);
}

TEST(RequestParserTest, LengthsThatLieOrContradictAreRefused) {
  for (const char* headers : {
           "Content-Length: 5\r\nContent-Length: 6\r\n",
           "Content-Length: 5\r\nContent-Length: 5\r\n",
           "Content-Length: -1\r\n",
           "Content-Length: +5\r\n",
           "Content-Length: 0x5\r\n",
           "Content-Length: 5, 5\r\n",
           "Content-Length: 18446744073709551617\r\n",
           "Content-Length:\r\n",
           "Content-Length : 5\r\n",
           "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
           "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
           "Transfer-Encoding : chunked\r\n",
       }) {
    EXPECT_EQ(StatusOf(Post(headers, "hello")), 400) << headers;
  }
}

TEST(RequestParserTest, OnlyOneFinalChunkedCodingIsKnown) {
  for (const char* headers : {"Transfer-Encoding: gzip, chunked\r\n", "Transfer-Encoding: gzip\r\n",
                              "Transfer-Encoding: identity\r\n"}) {
    EXPECT_EQ(StatusOf(Post(headers, "0\r\n\r\n")), 501) << headers;
  }
  const int twice =
      StatusOf(Post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"));
  EXPECT_TRUE(twice == 400 || twice == 501) << twice;
  EXPECT_EQ(StatusOf("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400);
}

TEST(RequestParserTest, BadChunksAreRefused) {
  for (const char* body : {"g\r\n", "-1\r\n", "ffffffffffffffffff\r\n", "5\r\nhelloX\r\n",
                           "5\nhello\n0\n\n", "5\r\nhello0\r\n\r\n"}) {
    const int status = StatusOf(Post("Transfer-Encoding: chunked\r\n",
                                     body + std::string("\r\n\r\n5\r\nhello\r\n0\r\n\r\n")));
    EXPECT_TRUE(status == 400 || status == 413) << body << ": " << status;
  }
}

TEST(RequestParserTest, MalformedHeadsAreRefused) {
  for (const std::string& bytes : {
           std::string("GET / HTTP/1.1\r\n\r\n"),                        // no Host
           std::string("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),  // two
           std::string("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n"),
           std::string("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 36),
           std::string("GET / HTTP/1.1\r\nHost: a\r\nNo colon\r\n\r\n"),
           std::string("GET / HTTP/1.1\r\nHost: a\r\n: empty\r\n\r\n"),
           std::string("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
           std::string("GET\r\nHost: a\r\n\r\n"),
           std::string("\x16\x03\x01 TLS to a plain port\r\n\r\n"),
       }) {
    const int status = StatusOf(bytes);
    EXPECT_TRUE(status == 400 || status == 505) << bytes << status;
  }
  EXPECT_EQ(StatusOf("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), 505);
  EXPECT_EQ(StatusOf("GET / HTTP/1.1\nHost: a\n\n\r\n\r\n"), 505);  // bare line feeds
}

TEST(RequestParserTest, HeadLimitsHoldAtTheirBounds) {
  const auto with_headers = [](int count) {
    std::string bytes = "GET / HTTP/1.1\r\nHost: a\r\n";
    for (int i = 1; i < count; ++i) bytes += "X: 1\r\n";
    return bytes + "\r\n";
  };
  EXPECT_EQ(StatusOf(with_headers(100)), 200);
  EXPECT_EQ(StatusOf(with_headers(101)), 431);
  const auto of_size = [](size_t size) {
    const std::string before = "GET / HTTP/1.1\r\nHost: a\r\nX: ", after = "\r\n\r\n";
    return before + std::string(size - before.size() - after.size(), 'x') + after;
  };
  const ParserLimits limits{.header_bytes = 1024};
  EXPECT_EQ(StatusOf(of_size(1024), limits), 200);
  EXPECT_EQ(StatusOf(of_size(1025), limits), 431);
  EXPECT_EQ(StatusOf("GET /" + std::string(1 << 20, 'x'), limits), 431);  // never ends
}

TEST(RequestParserTest, BodyLimitHoldsAtItsBoundAndBeforeTheBody) {
  const ParserLimits limits{.body_bytes = 100};
  EXPECT_EQ(StatusOf(Post("Content-Length: 100\r\n", std::string(100, 'x')), limits), 200);
  EXPECT_EQ(StatusOf(Post("Content-Length: 101\r\n"), limits), 413);  // nothing of it was sent
  const auto chunks = [](int bytes) {
    std::string body;
    for (int i = 0; i < bytes; ++i) body += "1\r\nx\r\n";
    return Post("Transfer-Encoding: chunked\r\n", body + "0\r\n\r\n");
  };
  EXPECT_EQ(StatusOf(chunks(100), limits), 200);
  EXPECT_EQ(StatusOf(chunks(101), limits), 413);
  EXPECT_EQ(StatusOf(Post("Transfer-Encoding: chunked\r\n", "65\r\n"), limits), 413);
}

TEST(RequestParserTest, AChunkExtensionWithoutEndIsRefused) {
  const ParserLimits limits{.header_bytes = 1024};
  EXPECT_EQ(StatusOf(Post("Transfer-Encoding: chunked\r\n", "5;" + std::string(4096, 'x')), limits),
            431);
}

TEST(RequestParserTest, ExpectationsAreKnownOrRefused) {
  EXPECT_EQ(StatusOf(Post("Expect: 200-ok\r\nContent-Length: 0\r\n")), 417);
  RequestParser parser({});
  size_t taken = 0;
  ASSERT_EQ(parser.Feed(Post("Expect: 100-continue\r\nContent-Length: 5\r\n"), taken), Step::kHead);
  EXPECT_TRUE(parser.expects_continue());
  RequestParser old({});
  ASSERT_EQ(old.Feed("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", taken),
            Step::kHead);
  EXPECT_FALSE(old.expects_continue());
}

TEST(RequestParserTest, PercentDecodingIsStrict) {
  EXPECT_EQ(PercentDecode("a%2Fb%c3%A4"), "a/b\xc3\xa4");
  for (const char* bad : {"%", "%2", "%zz", "a%2"}) EXPECT_EQ(PercentDecode(bad), std::nullopt);
}

}  // namespace
}  // namespace behemoth::gateway
