// Every metric of the process as a verb. Thread-safe, owned by main, outlives the service.
#pragma once

#include <prometheus/registry.h>

#include <memory>
#include <string>

namespace behemoth::tokenizer {

class Probe {
 public:
  explicit Probe(prometheus::Registry& registry);

  // Once per call, at its end. `code` is the gRPC code's number.
  void OnEncode(int code, double seconds);
  void OnVocabulary(double seconds);
  void OnEncoded(size_t text_bytes, size_t tokens);
  // A long call was taken (it waits or runs), and has ended.
  void OnLongCall();
  void OnLongCallEnd();

 private:
  void OnCall(const char* method, int code, double seconds);

  prometheus::Family<prometheus::Counter>& requests_;
  prometheus::Family<prometheus::Histogram>& seconds_;
  prometheus::Counter& tokens_;
  prometheus::Counter& text_bytes_;
  prometheus::Gauge& long_calls_;
};

}  // namespace behemoth::tokenizer
