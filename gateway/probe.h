// Every metric of the gateway as a verb. Thread-safe: counters are atomics. Names and buckets:
// spec/operations.md 2. No label ever comes from a client: endpoints are our own route names.
#pragma once

#include <prometheus/registry.h>

#include <memory>
#include <string_view>

namespace behemoth::gateway {

class Probe {
 public:
  explicit Probe(prometheus::Registry& registry);
  ~Probe();

  void OnRequest(std::string_view endpoint, int code, double seconds);
  void OnFirstToken(double seconds);               // since the request's arrival
  void OnTokensAfter(double seconds, int tokens);  // since the tokens before
  void OnUsage(int prompt_tokens, int cached_tokens, int generated_tokens);
  void OnRejected(std::string_view reason);  // key, full, draining, quarantined, ...
  void OnCancelled(std::string_view stage);  // body, tokenizing, waiting, decoding
  void OnSlowReader();
  void OnEncoded(double seconds, bool ok);  // one call of the tokenizer for a request
  // As of now: how many there are and can serve, and what these do. Endpoint pickers and
  // autoscalers read the load under vLLM's names.
  void OnWorkers(int known, int usable, int running, int waiting, double kv_use);
  void OnConnections(int change);
  void OnInFlight(int change);

 private:
  struct Families;
  std::unique_ptr<Families> families_;
};

}  // namespace behemoth::gateway
