// Both services behind a gateway, without a model: the worker's and the tokenizer's protocol over
// real gRPC, with scripted answers. Thread-safe.
//
// Vocabulary: id 0 "<unk>", 1 "<s>", 2 "</s>" (control), ids 3.. are " w3", " w4", ... A text
// encodes to one id for every 8 bytes begun. Sequence s of a request gets ids 3 + (s + i) % 997, i
// = 0, 1, ...
#pragma once

#include <absl/time/time.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace behemoth::bench {

struct TokenSourceConfig {
  std::string listen = "127.0.0.1:0";
  std::string model = "source";
  uint32_t context_tokens = 1 << 20;
  uint32_t default_tokens = 16;     // where max_tokens is absent
  uint32_t tokens_per_message = 1;  // as a worker coalesces
  // Between messages of a stream; zero = as fast as it is read. After `stall_after` messages a
  // stream is silent until it is cancelled.
  absl::Duration interval = absl::ZeroDuration();
  uint32_t stall_after = UINT32_MAX;
};

class TokenSource {
 public:
  explicit TokenSource(const TokenSourceConfig& config);
  ~TokenSource();

  int port() const;
  std::string address() const;  // of both services

  // What a test sees and does.
  int streams_open() const;
  int streams_started() const;
  int streams_cancelled() const;
  int controls() const;
  std::vector<uint32_t> forced_ids() const;          // of the last ForceIds
  void FailGenerate(int grpc_code);                  // every new stream, before anything; 0 = serve
  void FailAfter(int grpc_code, uint32_t messages);  // new streams end so after that many
  void SetTokenizerUp(bool up);                      // false: UNAVAILABLE
  void SetReady(bool ready);

  struct State;

 private:
  std::shared_ptr<State> state_;
  class Servers;
  std::unique_ptr<Servers> servers_;
};

}  // namespace behemoth::bench
