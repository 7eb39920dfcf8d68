// Every limit of the HTTP layer, with its unit, default and reason.
#pragma once

#include <cstddef>

#include "gateway/http/request_parser.h"

namespace behemoth::gateway {

struct HttpLimits {
  ParserLimits parser;
  int max_connections = 20000;           // two descriptors each at most: fits a 64 Ki file limit
  int head_timeout_ms = 10'000;          // slow clients send a head within one round trip or two
  int body_timeout_ms = 60'000;          // 8 MiB at 1.1 Mbit/s
  int idle_timeout_ms = 75'000;          // above the 60 s of common proxies, which close first
  int linger_timeout_ms = 2'000;         // after an early refusal: time for the client to read it
  int write_timeout_ms = 30'000;         // 64 KiB at 17 kbit/s: no reader is that slow
  size_t queue_bytes = size_t{4} << 20;  // of one stream; over it the reader is too slow
};

}  // namespace behemoth::gateway
