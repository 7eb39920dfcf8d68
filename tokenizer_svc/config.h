// What the process is told at start. Flags equal the fields.
#pragma once

#include <cstdint>
#include <string>

#include "proto/support/flags.h"
#include "proto/support/tls.h"

namespace behemoth::tokenizer {

struct Limits {
  int max_inputs = 4096;              // of one call
  int max_segments = 65536;           // of one call; a long chat has two per message
  int64_t max_text_bytes = 16 << 20;  // of one call: 131,072 tokens of 128 bytes, all that can fit
  // Text of one call that is encoded on gRPC's own thread: 10 ms of the most expensive kind.
  int64_t short_text_bytes = 32 << 10;
  int max_waiting_long_calls = 16;  // each holds at most its message: 288 MiB in all
};

struct Config {
  std::string model;  // folder
  std::string listen = "127.0.0.1:50051";
  std::string health_listen;  // empty = on `listen` only
  std::string metrics_listen = "127.0.0.1:9101";
  Limits limits;
  support::ServerTlsConfig tls;
  bool reflection = true;
  int drain_timeout_s = 10;  // the longest legal call takes a tenth of it
};

void AddFlags(Config& config, support::Flags& flags);

}  // namespace behemoth::tokenizer
