// Bytes -> request head and body, incrementally, under limits. Knows nothing of sockets.
//
// Life: fresh -> Feed()* until kHead (the caller decides: refuse, or go on) -> Feed()* until kDone.
// One parser per request. Thread-compatible. Errors carry the HTTP status to answer with, after
// which the connection cannot be read any further.
// Memory: never more than header_bytes + body_bytes + what one Feed() was given.
// Source: RFC 9112; the grammar itself is Boost.Beast's.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "gateway/http/message.h"

namespace behemoth::gateway {

struct ParserLimits {
  uint32_t header_bytes = 16 << 10;  // request line included
  uint32_t header_count = 100;
  uint64_t body_bytes = 8 << 20;
};

struct ParseFailure {
  int status;  // 400, 413, 417, 431, 501 or 505
  std::string message;
};

class RequestParser {
 public:
  enum class Step { kNeedMore, kHead, kDone, kFailed };

  explicit RequestParser(const ParserLimits& limits);
  ~RequestParser();

  // Takes bytes from the front of `input` and says how many in `consumed`. Returns kHead once, when
  // the head is whole; nothing of the body has been consumed then. Limits over Content-Length fail
  // at the head, before any of the body is read.
  Step Feed(std::string_view input, size_t& consumed);

  const RequestHead& head() const;
  std::string TakeBody();
  const ParseFailure& failure() const;
  bool keep_alive() const;
  bool expects_continue() const;  // "Expect: 100-continue" and a body to come
  bool started() const;           // some byte of the request has been seen

 private:
  class Grammar;
  Step FeedHead(std::string_view input, size_t& consumed);
  Step FeedBody(std::string_view input, size_t& consumed);
  Step Fail(int status, std::string message);
  Step CheckHead();

  ParserLimits limits_;
  std::unique_ptr<Grammar> grammar_;
  std::optional<ParseFailure> failure_;
  bool head_done_ = false;
  bool started_ = false;
};

}  // namespace behemoth::gateway
