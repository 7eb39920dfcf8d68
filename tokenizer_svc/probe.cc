#include "tokenizer_svc/probe.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>

namespace behemoth::tokenizer {
namespace {

// A short chat takes tens of microseconds, the longest legal text seconds.
const prometheus::Histogram::BucketBoundaries kSeconds = {
    .00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10};

}  // namespace

Probe::Probe(prometheus::Registry& registry)
    : requests_(prometheus::BuildCounter()
                    .Name("behemoth_tokenizer_requests_total")
                    .Help("Calls, by method and gRPC code.")
                    .Register(registry)),
      seconds_(prometheus::BuildHistogram()
                   .Name("behemoth_tokenizer_seconds")
                   .Help("Time of one call in this process, by method.")
                   .Register(registry)),
      tokens_(prometheus::BuildCounter()
                  .Name("behemoth_tokenizer_tokens_total")
                  .Help("Ids handed out by Encode.")
                  .Register(registry)
                  .Add({})),
      text_bytes_(prometheus::BuildCounter()
                      .Name("behemoth_tokenizer_text_bytes_total")
                      .Help("UTF-8 bytes of text encoded.")
                      .Register(registry)
                      .Add({})),
      long_calls_(prometheus::BuildGauge()
                      .Name("behemoth_tokenizer_long_calls")
                      .Help("Calls of long text that wait or run.")
                      .Register(registry)
                      .Add({})) {}

void Probe::OnEncode(int code, double seconds) { OnCall("Encode", code, seconds); }
void Probe::OnVocabulary(double seconds) { OnCall("GetVocabulary", 0, seconds); }

void Probe::OnEncoded(size_t text_bytes, size_t tokens) {
  text_bytes_.Increment(static_cast<double>(text_bytes));
  tokens_.Increment(static_cast<double>(tokens));
}

void Probe::OnLongCall() { long_calls_.Increment(); }
void Probe::OnLongCallEnd() { long_calls_.Decrement(); }

void Probe::OnCall(const char* method, int code, double seconds) {
  requests_.Add({{"method", method}, {"code", std::to_string(code)}}).Increment();
  seconds_.Add({{"method", method}}, kSeconds).Observe(seconds);
}

}  // namespace behemoth::tokenizer
