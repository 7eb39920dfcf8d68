#include "worker/probe.h"

#include <absl/time/clock.h>
#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>

#include <array>
#include <vector>

namespace behemoth::worker {
namespace {

using Buckets = prometheus::Histogram::BucketBoundaries;
using Labels = prometheus::Labels;

// vLLM's edges for first token and whole request; between tokens the union of vLLM's and SGLang's,
// because a big model's 15 to 40 ms would fall into two of vLLM's buckets.
const Buckets kFirstToken = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                             1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
const Buckets kInterToken = {.002, .004, .006, .008, .01, .015, .02, .025, .03, .035, .04, .05,
                             .06,  .075, .08,  .1,   .15, .2,   .3,  .4,   .5,  .6,   .75, .8,
                             1,    2,    2.5,  4,    5,   6,    7.5, 8,    10,  20,   40,  80};
const Buckets kRequest = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                          30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
const Buckets kStep = {.0005, .001, .0025, .005, .01, .015, .02, .025, .03, .04, .05,
                       .075,  .1,   .15,   .2,   .3,  .5,   1,   2.5,  5,   10,  30};
const Buckets kStepTokens = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
const Buckets kTokens = {1,   2,    5,    10,   20,    50,    100,   200,
                         500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};

constexpr std::array kStates = {WorkerState::kLoading, WorkerState::kWarming, WorkerState::kReady,
                                WorkerState::kDraining, WorkerState::kFailed};

}  // namespace

struct Probe::Families {
  Families(prometheus::Registry& registry, const ProbeConfig& config)
      : r(registry),
        vllm_names(config.vllm_names),
        names{{"model_name", config.model_name}, {"engine", "0"}} {
    auto& state_family = prometheus::BuildGauge()
                             .Name("behemoth_engine_state")
                             .Help("1 for the state that the worker is in.")
                             .Register(r);
    for (const WorkerState state : kStates) {
      states.push_back(&state_family.Add({{"state", Name(state)}}));
    }
    auto& refused_family = prometheus::BuildCounter()
                               .Name("behemoth_worker_refused_total")
                               .Help("Calls refused before the engine saw them, by gRPC code.")
                               .Register(r);
    auto& closed_family = prometheus::BuildCounter()
                              .Name("behemoth_worker_requests_total")
                              .Help("Requests that have ended, by gRPC code.")
                              .Register(r);
    for (int code = 0; code <= 16; ++code) {
      const std::string name = absl::StatusCodeToString(static_cast<absl::StatusCode>(code));
      refused.push_back(&refused_family.Add({{"code", name}}));
      closed.push_back(&closed_family.Add({{"code", name}}));
    }
    prometheus::BuildGauge()
        .Name("behemoth_model_info")
        .Help("The model that is served, by the name replies carry; always 1.")
        .Register(r)
        .Add({{"model_name", config.model_name}})
        .Set(1);
    auto& memory = prometheus::BuildGauge()
                       .Name("behemoth_planned_memory_bytes")
                       .Help("Device memory that the plan gave to each part at start.")
                       .Register(r);
    const auto blocks = static_cast<uint64_t>(config.blocks);
    for (int32_t rank = 0; rank < config.ranks; ++rank) {
      const auto add = [&](const char* part, uint64_t bytes) {
        memory.Add({{"part", part}, {"rank", std::to_string(rank)}})
            .Set(static_cast<double>(bytes));
      };
      add("weights", config.weight_bytes);
      add("activations", config.activation_bytes);
      add("workspace", config.workspace_bytes);
      add("kv", config.block_bytes * blocks);
    }
    if (!vllm_names) return;
    auto& success = prometheus::BuildCounter()
                        .Name("vllm:request_success_total")
                        .Help("Finished sequences, by reason.")
                        .Register(r);
    for (const char* reason : {"stop", "length", "abort"}) {
      Labels labels = names;
      labels["finished_reason"] = reason;
      finished.push_back(&success.Add(labels));
    }
    Labels shape = names;
    shape["block_size"] = std::to_string(config.tokens_per_block);
    shape["num_gpu_blocks"] = std::to_string(config.blocks);
    prometheus::BuildGauge()
        .Name("vllm:cache_config_info")
        .Help("The KV cache's shape; always 1.")
        .Register(r)
        .Add(shape)
        .Set(1);
  }

  // One quantity under our name and, if wanted, under vLLM's.
  struct Counter {
    prometheus::Counter& ours;
    prometheus::Counter* theirs;
    void Add(double value) {
      ours.Increment(value);
      if (theirs != nullptr) theirs->Increment(value);
    }
  };
  struct Gauge {
    prometheus::Gauge& ours;
    prometheus::Gauge* theirs;
    void Set(double value) {
      ours.Set(value);
      if (theirs != nullptr) theirs->Set(value);
    }
  };
  struct Histogram {
    prometheus::Histogram& ours;
    prometheus::Histogram* theirs;
    void Observe(double value) {
      ours.Observe(value);
      if (theirs != nullptr) theirs->Observe(value);
    }
  };

  Counter MakeCounter(const char* name, const char* vllm, const char* help) {
    const auto make = [&](const char* n, const Labels& labels) -> prometheus::Counter& {
      return prometheus::BuildCounter().Name(n).Help(help).Register(r).Add(labels);
    };
    return {make(name, {}), vllm_names && vllm != nullptr ? &make(vllm, names) : nullptr};
  }
  Gauge MakeGauge(const char* name, const char* vllm, const char* help) {
    const auto make = [&](const char* n, const Labels& labels) -> prometheus::Gauge& {
      return prometheus::BuildGauge().Name(n).Help(help).Register(r).Add(labels);
    };
    return {make(name, {}), vllm_names && vllm != nullptr ? &make(vllm, names) : nullptr};
  }
  Histogram MakeHistogram(const char* name, const char* vllm, const char* help,
                          const Buckets& buckets) {
    const auto make = [&](const char* n, const Labels& labels) -> prometheus::Histogram& {
      return prometheus::BuildHistogram().Name(n).Help(help).Register(r).Add(labels, buckets);
    };
    return {make(name, {}), vllm_names && vllm != nullptr ? &make(vllm, names) : nullptr};
  }

  prometheus::Registry& r;
  const bool vllm_names;
  const Labels names;
  std::vector<prometheus::Gauge*> states;
  std::vector<prometheus::Counter*> refused, closed;  // [gRPC code]
  std::vector<prometheus::Counter*> finished;         // [FinishReason]

  Gauge running = MakeGauge("behemoth_running_sequences", "vllm:num_requests_running",
                            "Sequences that hold blocks.");
  Gauge waiting = MakeGauge("behemoth_waiting_requests", "vllm:num_requests_waiting",
                            "Requests that wait for blocks or a place in the step.");
  Gauge waiting_tokens =
      MakeGauge("behemoth_waiting_tokens", nullptr, "Tokens to compute of waiting requests.");
  Gauge kv_use = MakeGauge("behemoth_kv_use_ratio", "vllm:kv_cache_usage_perc",
                           "Blocks that sequences hold, 0 to 1.");
  Gauge load_ratio = MakeGauge("behemoth_load_ratio", nullptr, "Weights loaded, 0 to 1.");
  Gauge load_rate = MakeGauge("behemoth_load_bytes_per_second", nullptr,
                              "Weights loaded a second, since loading began.");
  Gauge last_step = MakeGauge("behemoth_last_step_timestamp_seconds", nullptr,
                              "When the last step ended, since the epoch.");
  Counter steps = MakeCounter("behemoth_steps_total", nullptr, "Steps committed.");
  Counter device_busy = MakeCounter("behemoth_device_busy_seconds_total", nullptr,
                                    "Time that the device worked on steps; 0 on the cpu backend.");
  Counter device_idle =
      MakeCounter("behemoth_device_idle_seconds_total", nullptr,
                  "Time that the device waited between two steps of a busy engine.");
  Counter prompt = MakeCounter("behemoth_worker_prompt_tokens_total", "vllm:prompt_tokens_total",
                               "Prompt tokens computed.");
  Counter generated = MakeCounter("behemoth_worker_generation_tokens_total",
                                  "vllm:generation_tokens_total", "Tokens sampled.");
  Counter queries = MakeCounter("behemoth_prefix_cache_queries_total",
                                "vllm:prefix_cache_queries_total", "Prompt tokens looked up.");
  Counter hits = MakeCounter("behemoth_prefix_cache_hits_total", "vllm:prefix_cache_hits_total",
                             "Of them, found.");
  Counter preemptions = MakeCounter("behemoth_preemptions_total", "vllm:num_preemptions_total",
                                    "Sequences that gave their blocks back to be done again.");
  Counter non_finite =
      MakeCounter("behemoth_non_finite_logits_total", "vllm:corrupted_requests_total",
                  "Requests failed for non-finite logits.");
  Counter slow_readers = MakeCounter("behemoth_worker_slow_reader_total", nullptr,
                                     "Streams failed because their reader was too slow.");
  Histogram step_seconds =
      MakeHistogram("behemoth_step_seconds", nullptr, "Time of one step.", kStep);
  Histogram step_tokens = MakeHistogram("behemoth_step_tokens", "vllm:iteration_tokens_total",
                                        "Tokens of one step.", kStepTokens);
  Histogram first_token = MakeHistogram(
      "behemoth_worker_time_to_first_token_seconds", "vllm:time_to_first_token_seconds",
      "From a request's arrival to its first token.", kFirstToken);
  Histogram inter_token = MakeHistogram("behemoth_worker_inter_token_latency_seconds",
                                        "vllm:inter_token_latency_seconds",
                                        "Between tokens of one sequence.", kInterToken);
  Histogram request =
      MakeHistogram("behemoth_worker_request_seconds", "vllm:e2e_request_latency_seconds",
                    "From a request's arrival to a sequence's finish.", kRequest);
  Histogram queue =
      MakeHistogram("behemoth_worker_queue_seconds", "vllm:request_queue_time_seconds",
                    "From arrival to the first step.", kRequest);
  Histogram prefill =
      MakeHistogram("behemoth_worker_prefill_seconds", "vllm:request_prefill_time_seconds",
                    "From the first step to the first token.", kRequest);
  Histogram decode =
      MakeHistogram("behemoth_worker_decode_seconds", "vllm:request_decode_time_seconds",
                    "From the first token to the finish.", kRequest);
  Histogram prompt_length = MakeHistogram(
      "behemoth_worker_prompt_tokens", "vllm:request_prompt_tokens", "Of one sequence.", kTokens);
  Histogram output_length =
      MakeHistogram("behemoth_worker_generation_tokens", "vllm:request_generation_tokens",
                    "Of one sequence.", kTokens);
};

Probe::Probe(prometheus::Registry& registry, const ProbeConfig& config)
    : families_(std::make_unique<Families>(registry, config)) {
  OnState(WorkerState::kLoading);
}
Probe::~Probe() = default;

void Probe::OnStep(const StepShape& shape, absl::Duration duration) {
  Families& f = *families_;
  f.steps.Add(1);
  f.device_busy.Add(absl::ToDoubleSeconds(shape.device.busy));
  f.device_idle.Add(absl::ToDoubleSeconds(shape.device.idle));
  f.prompt.Add(shape.prompt_tokens);
  f.generated.Add(shape.samples);
  f.step_seconds.Observe(absl::ToDoubleSeconds(duration));
  f.step_tokens.Observe(shape.tokens);
  f.last_step.Set(absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()));
}

void Probe::OnPrefixLookup(int32_t prompt_tokens, int32_t cached_tokens) {
  families_->queries.Add(prompt_tokens);
  families_->hits.Add(cached_tokens);
}

void Probe::OnFirstToken(absl::Duration since_arrival) {
  families_->first_token.Observe(absl::ToDoubleSeconds(since_arrival));
}
void Probe::OnNextToken(absl::Duration since_last) {
  families_->inter_token.Observe(absl::ToDoubleSeconds(since_last));
}
void Probe::OnPreemption() { families_->preemptions.Add(1); }
void Probe::OnNonFinite() { families_->non_finite.Add(1); }

void Probe::OnFinish(const FinishEvent& finish, absl::Duration lifetime) {
  Families& f = *families_;
  if (f.vllm_names) f.finished[static_cast<size_t>(finish.reason)]->Increment();
  f.request.Observe(absl::ToDoubleSeconds(lifetime));
  f.queue.Observe(absl::ToDoubleSeconds(finish.queue_time));
  f.prefill.Observe(absl::ToDoubleSeconds(finish.prefill_time));
  f.decode.Observe(absl::ToDoubleSeconds(finish.decode_time));
  f.prompt_length.Observe(finish.prompt_tokens);
  f.output_length.Observe(finish.completion_tokens);
}

void Probe::OnClose(const absl::Status& status) {
  families_->closed[static_cast<size_t>(status.code())]->Increment();
  // Once admitted, a request can exhaust one thing only: its stream's buffer.
  if (absl::IsResourceExhausted(status)) families_->slow_readers.Add(1);
}

void Probe::OnRefused(const absl::Status& why) {
  families_->refused[static_cast<size_t>(why.code())]->Increment();
}

void Probe::OnLoad(const LoadSnapshot& load) {
  Families& f = *families_;
  f.running.Set(load.running_sequences);
  f.waiting.Set(load.waiting_requests);
  f.waiting_tokens.Set(static_cast<double>(load.waiting_tokens));
  f.kv_use.Set(KvUse(load));
}

void Probe::OnState(WorkerState state) {
  for (size_t i = 0; i < kStates.size(); ++i) {
    families_->states[i]->Set(kStates[i] == state ? 1 : 0);
  }
}

void Probe::OnLoadProgress(uint64_t done_bytes, uint64_t total_bytes, double bytes_per_second) {
  if (total_bytes == 0) return;
  families_->load_rate.Set(bytes_per_second);
  families_->load_ratio.Set(static_cast<double>(done_bytes) / static_cast<double>(total_bytes));
}

}  // namespace behemoth::worker
