// The services behind a gateway as a process of their own: token_source [PORT [INTERVAL_MS
// [STALL_AFTER [TOKENS_PER_MESSAGE]]]]. Prints its port, serves until SIGTERM.
#include <cstdio>
#include <cstdlib>

#include "proto/support/process.h"
#include "tests/bench/gateway/token_source.h"

int main(int argc, char** argv) {
  behemoth::support::BlockSignals();
  behemoth::support::RaiseFileLimit();
  const auto number = [&](int index, unsigned long otherwise) {
    return argc > index ? std::strtoul(argv[index], nullptr, 10) : otherwise;
  };
  behemoth::bench::TokenSourceConfig config;
  config.listen = "127.0.0.1:" + std::to_string(number(1, 0));
  config.interval = absl::Milliseconds(number(2, 0));
  config.stall_after = static_cast<uint32_t>(number(3, UINT32_MAX));
  config.tokens_per_message = static_cast<uint32_t>(number(4, 1));
  behemoth::bench::TokenSource source(config);
  std::printf("%d\n", source.port());
  std::fflush(stdout);
  behemoth::support::WaitForShutdown();
}
