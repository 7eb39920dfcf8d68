#include "gateway/probe.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>

#include <string>

namespace behemoth::gateway {
namespace {

using Buckets = prometheus::Histogram::BucketBoundaries;

const Buckets kFirstToken = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                             1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
// A 123B model makes a token in 15 to 40 ms: vLLM's edges and SGLang's together resolve that.
const Buckets kInterToken = {.002, .004, .006, .008, .01, .015, .02, .025, .03, .035, .04, .05,
                             .06,  .075, .08,  .1,   .15, .2,   .3,  .4,   .5,  .6,   .75, .8,
                             1,    2,    2.5,  4,    5,   6,    7.5, 8,    10,  20,   40,  80};
const Buckets kRequest = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                          30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};

}  // namespace

struct Probe::Families {
  explicit Families(prometheus::Registry& r)
      : requests(Counter(r, "behemoth_requests_total", "Requests by route and HTTP status.")),
        rejected(Counter(r, "behemoth_rejected_total", "Requests refused before any work.")),
        cancelled(Counter(r, "behemoth_cancelled_total", "Requests whose client went away.")),
        slow(Counter(r, "behemoth_stream_slow_reader_total", "Streams cut: slow reader.").Add({})),
        prompt(Counter(r, "behemoth_prompt_tokens_total", "Prompt tokens.").Add({})),
        cached(Counter(r, "behemoth_prompt_tokens_cached_total", "Found in a cache.").Add({})),
        generated(Counter(r, "behemoth_generation_tokens_total", "Tokens generated.").Add({})),
        encode_failures(Counter(r, "behemoth_tokenizer_failures_total",
                                "Calls of the tokenizer service that failed.")
                            .Add({})),
        encode(Seconds(r, "behemoth_tokenizer_encode_seconds",
                       "A call of the tokenizer service for a request.", kFirstToken)),
        workers_known(Gauge(r, "behemoth_workers_known", "Workers there are.")),
        workers_usable(Gauge(r, "behemoth_workers_usable", "Workers that can take a request.")),
        connections(Gauge(r, "behemoth_http_connections", "Open client connections.")),
        in_flight(Gauge(r, "behemoth_requests_in_flight", "Admitted and not ended.")),
        first_token(Seconds(r, "behemoth_time_to_first_token_seconds",
                            "From a request's arrival to its first token.", kFirstToken)),
        inter_token(Seconds(r, "behemoth_inter_token_latency_seconds",
                            "Between tokens of one sequence.", kInterToken)),
        request(Seconds(r, "behemoth_e2e_request_latency_seconds",
                        "From a generation request's arrival to its end.", kRequest)),
        running(Gauge(r, "vllm:num_requests_running", "Sequences that run, all usable workers.")),
        waiting(Gauge(r, "vllm:num_requests_waiting", "Requests that wait, all usable workers.")),
        kv_use(Gauge(r, "vllm:kv_cache_usage_perc", "KV blocks in use, 0 to 1, their mean.")) {
    // A series that appears with its first event has no rate of that event.
    for (const char* reason : {"key", "key_limit", "full", "draining", "unavailable"}) {
      rejected.Add({{"reason", reason}});
    }
    for (const char* stage : {"body", "tokenizing", "waiting", "decoding"}) {
      cancelled.Add({{"stage", stage}});
    }
    for (const char* endpoint : {"chat", "completions"}) {
      for (const char* code : {"200", "400", "401", "429", "499", "500", "503", "504"}) {
        requests.Add({{"endpoint", endpoint}, {"code", code}});
      }
    }
  }

  static prometheus::Family<prometheus::Counter>& Counter(prometheus::Registry& r, const char* name,
                                                          const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(r);
  }
  static prometheus::Gauge& Gauge(prometheus::Registry& r, const char* name, const char* help) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(r).Add({});
  }
  static prometheus::Histogram& Seconds(prometheus::Registry& r, const char* name, const char* help,
                                        const Buckets& buckets) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(r).Add({}, buckets);
  }

  prometheus::Family<prometheus::Counter>& requests;
  prometheus::Family<prometheus::Counter>& rejected;
  prometheus::Family<prometheus::Counter>& cancelled;
  prometheus::Counter& slow;
  prometheus::Counter& prompt;
  prometheus::Counter& cached;
  prometheus::Counter& generated;
  prometheus::Counter& encode_failures;
  prometheus::Histogram& encode;
  prometheus::Gauge& workers_known;
  prometheus::Gauge& workers_usable;
  prometheus::Gauge& connections;
  prometheus::Gauge& in_flight;
  prometheus::Histogram& first_token;
  prometheus::Histogram& inter_token;
  prometheus::Histogram& request;
  prometheus::Gauge& running;
  prometheus::Gauge& waiting;
  prometheus::Gauge& kv_use;
};

Probe::Probe(prometheus::Registry& registry) : families_(std::make_unique<Families>(registry)) {}
Probe::~Probe() = default;

void Probe::OnRequest(std::string_view endpoint, int code, double seconds) {
  families_->requests.Add({{"endpoint", std::string(endpoint)}, {"code", std::to_string(code)}})
      .Increment();
  if (endpoint == "chat" || endpoint == "completions") families_->request.Observe(seconds);
}
void Probe::OnFirstToken(double seconds) { families_->first_token.Observe(seconds); }
void Probe::OnTokensAfter(double seconds, int tokens) {
  // Tokens that arrived together share the time: one observation each, as SGLang counts them.
  for (int i = 0; i < tokens; ++i) families_->inter_token.Observe(seconds / tokens);
}
void Probe::OnUsage(int prompt_tokens, int cached_tokens, int generated_tokens) {
  families_->prompt.Increment(prompt_tokens);
  families_->cached.Increment(cached_tokens);
  families_->generated.Increment(generated_tokens);
}
void Probe::OnRejected(std::string_view reason) {
  families_->rejected.Add({{"reason", std::string(reason)}}).Increment();
}
void Probe::OnCancelled(std::string_view stage) {
  families_->cancelled.Add({{"stage", std::string(stage)}}).Increment();
}
void Probe::OnEncoded(double seconds, bool ok) {
  families_->encode.Observe(seconds);
  if (!ok) families_->encode_failures.Increment();
}
void Probe::OnWorkers(int known, int usable, int running, int waiting, double kv_use) {
  families_->workers_known.Set(known);
  families_->workers_usable.Set(usable);
  families_->running.Set(running);
  families_->waiting.Set(waiting);
  families_->kv_use.Set(kv_use);
}
void Probe::OnSlowReader() { families_->slow.Increment(); }
void Probe::OnConnections(int change) { families_->connections.Increment(change); }
void Probe::OnInFlight(int change) { families_->in_flight.Increment(change); }

}  // namespace behemoth::gateway
