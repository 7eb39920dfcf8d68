// The worker's engine at a model's real shape, as its callers see it: decode rates by batch and
// context, time to first token, prefill, the next turn of a chat, a long prompt beside running
// streams. Everything is in: scheduling, sampling, read-back. No gRPC.
//
//   serving_bench --model DIR [--load-format random] [--backend cuda] [--max-model-len 8192]
//                 [--utilization 0.93] [--kv fp8] [--itl-target-ms 46.5] [--only NAME,NAME]
//                 [--tensor-parallel-size 2] [--nccl-library PATH] [--all-reduce nccl]
//                 [--tokenizer FILE]
//
// With random weights no file but DIR/config.json is read. FILE is a tokenizer.model: structured
// output compiles for its vocabulary instead of a made-up one. Prints one line a measurement.
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>
#include <absl/synchronization/mutex.h>
#include <absl/synchronization/notification.h>
#include <absl/time/clock.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/bench/worker/form_inputs.h"
#include "worker/engine/engine.h"
#include "worker/engine/warm_up.h"
#include "worker/memory_budget.h"
#include "worker/ranks.h"
#include "worker/runner/model_loader.h"
#include "worker/structure/form_compiler.h"

namespace behemoth::worker {
namespace {

struct Settings {
  std::string model, only, tokenizer, nccl_library = "libnccl.so.2", all_reduce = "auto";
  int32_t tensor_parallel_size = 1;
  bool random = false, cuda = false, fp8 = false;
  int32_t max_model_len = 8192;
  double utilization = 0.93;
  double itl_target_ms = 46.5;
};

bool Parse(const std::string& name, const std::string& value, Settings* s) {
  if (name == "--model") return !(s->model = value).empty();
  if (name == "--only") return !(s->only = value).empty();
  if (name == "--load-format") return s->random = value == "random", true;
  if (name == "--backend") return s->cuda = value == "cuda", true;
  if (name == "--kv") return s->fp8 = value == "fp8", true;
  if (name == "--tokenizer") return !(s->tokenizer = value).empty();
  if (name == "--nccl-library") return !(s->nccl_library = value).empty();
  if (name == "--all-reduce") return !(s->all_reduce = value).empty();
  if (name == "--tensor-parallel-size") {
    return absl::SimpleAtoi(value, &s->tensor_parallel_size) && s->tensor_parallel_size > 0;
  }
  if (name == "--max-model-len") return absl::SimpleAtoi(value, &s->max_model_len);
  if (name == "--itl-target-ms") return absl::SimpleAtod(value, &s->itl_target_ms);
  if (name == "--utilization") return absl::SimpleAtod(value, &s->utilization);
  return false;
}

// When each token of one stream came.
class Clock : public TokenSink {
 public:
  bool Push(TokenEvent event) override {
    const absl::Time now = absl::Now();
    absl::MutexLock lock(&mutex_);
    if (const auto* tokens = std::get_if<TokensEvent>(&event)) {
      times_.insert(times_.end(), tokens->ids.size(), now);
    } else if (const auto* finish = std::get_if<FinishEvent>(&event)) {
      cached_tokens_ = finish->cached_tokens;
    }
    return true;
  }
  void Close(const absl::Status& status) override {
    absl::MutexLock lock(&mutex_);
    status_ = status;
    closed_ = true;
  }
  void AwaitTokens(size_t count) const {
    absl::MutexLock lock(&mutex_);
    const auto enough = [&] { return closed_ || times_.size() >= count; };
    mutex_.Await(absl::Condition(&enough));
  }
  void AwaitEnd() const {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&closed_));
    if (!status_.ok()) std::printf("  failed: %s\n", status_.ToString().c_str());
  }
  std::vector<absl::Time> times() const {
    absl::MutexLock lock(&mutex_);
    return times_;
  }
  int32_t cached_tokens() const {
    absl::MutexLock lock(&mutex_);
    return cached_tokens_;
  }

 private:
  mutable absl::Mutex mutex_;
  std::vector<absl::Time> times_;
  int32_t cached_tokens_ = 0;
  bool closed_ = false;
  absl::Status status_;
};

double Quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(q * static_cast<double>(values.size() - 1))];
}

std::vector<double> GapsMs(const std::vector<absl::Time>& times, absl::Time from, absl::Time to) {
  std::vector<double> gaps;
  for (size_t i = 1; i < times.size(); ++i) {
    if (times[i - 1] >= from && times[i] <= to) {
      gaps.push_back(absl::ToDoubleMilliseconds(times[i] - times[i - 1]));
    }
  }
  return gaps;
}

class ServingBench {
 public:
  ServingBench(const Settings& settings, ModelRunner* runner)
      : settings_(settings), runner_(runner) {
    SchedulerConfig config = ConfigFor(runner->limits());
    config.itl_target = absl::Milliseconds(settings.itl_target_ms);
    engine_ = std::make_unique<Engine>(config, MailboxLimits{}, runner, &observer_, EngineHooks{});
    engine_->Start();
  }
  ~ServingBench() { engine_->Stop(); }

  bool Wants(const std::string& name) const {
    const std::vector<std::string> names = absl::StrSplit(settings_.only, ',');
    return settings_.only.empty() || std::find(names.begin(), names.end(), name) != names.end();
  }

  // A prompt that no other shares, unless `seed` and the beginning are the same.
  std::vector<TokenId> Prompt(int32_t tokens, uint32_t seed) const {
    std::vector<TokenId> prompt;
    uint32_t state = seed * 2654435761u + 1;
    for (int32_t i = 0; i < tokens; ++i) {
      state = state * 1664525u + 1013904223u;
      prompt.push_back(
          static_cast<TokenId>(state % static_cast<uint32_t>(runner_->limits().vocabulary_size)));
    }
    return prompt;
  }

  // What each stream asks of its samples.
  enum class Sampling {
    kPlain,
    kEverything,  // DRY, XTC, penalties, logprobs
    kForm,        // a JSON text that does not end
  };

  std::shared_ptr<Clock> Submit(std::vector<TokenId> prompt, int32_t max_tokens,
                                Sampling sampling = Sampling::kPlain,
                                FormCompiler::Forms forms = {}) {
    auto clock = std::make_shared<Clock>();
    GenerationRequest request;
    request.request_id = absl::StrCat("r", ++submitted_);
    request.prompt = std::move(prompt);
    request.max_tokens = max_tokens;
    request.sampling.temperature = 0.7f;
    request.sampling.top_p = 0.95f;
    request.sampling.seed = static_cast<uint64_t>(submitted_);
    request.sink = clock;
    if (sampling == Sampling::kEverything) AskForEverything(&request.sampling);
    request.forms = sampling == Sampling::kForm ? MakeForm(kEndlessList) : std::move(forms);
    const auto serial = engine_->Submit(std::move(request));
    if (!serial.ok()) std::printf("  refused: %s\n", serial.status().ToString().c_str());
    return clock;
  }

  // `batch` streams that all decode; the gaps of the tokens while they do.
  void Decode(const std::string& name, int32_t batch, int32_t context, int32_t steps,
              Sampling sampling = Sampling::kPlain) {
    if (!Wants(name)) return;
    std::vector<std::shared_ptr<Clock>> clocks;
    for (int32_t i = 0; i < batch; ++i) {
      clocks.push_back(
          Submit(Prompt(context, ++seed_), steps + 200 + batch * context / 64, sampling));
    }
    absl::Time from = absl::InfinitePast();
    for (const auto& clock : clocks) {
      clock->AwaitTokens(8);
      from = std::max(from, absl::Now());
    }
    std::vector<size_t> before;
    for (const auto& clock : clocks) before.push_back(clock->times().size());
    observer_.Take();
    clocks[0]->AwaitTokens(before[0] + static_cast<size_t>(steps));
    const absl::Time to = absl::Now();
    const DeviceTimes device = observer_.Take();
    const std::vector<double> gaps = GapsMs(clocks[0]->times(), from, to);
    const double median = Quantile(gaps, 0.5);
    std::printf(
        "%-22s batch %3d context %5d..: %8.3f ms a step (p10 %.3f, p99 %.3f, %zu steps), "
        "%8.1f tok/s, device idle %.2f %%\n",
        name.c_str(), batch, context, median, Quantile(gaps, 0.1), Quantile(gaps, 0.99),
        gaps.size(), 1e3 * batch / median,
        100 * absl::FDivDuration(device.idle, device.idle + device.busy));
    std::fflush(stdout);
    for (int32_t i = 0; i < batch; ++i) {
      engine_->Cancel(absl::StrCat("r", submitted_ - i), [](const absl::Status&) {}).IgnoreError();
    }
    for (const auto& clock : clocks) clock->AwaitEnd();
  }

  double FirstTokenMs(std::vector<TokenId> prompt, int32_t* cached,
                      FormCompiler::Forms forms = {}) {
    const absl::Time began = absl::Now();
    const auto clock = Submit(std::move(prompt), 1, Sampling::kPlain, std::move(forms));
    clock->AwaitEnd();
    if (cached != nullptr) *cached = clock->cached_tokens();
    const auto times = clock->times();
    return times.empty() ? -1 : absl::ToDoubleMilliseconds(times[0] - began);
  }

  void FirstToken(const std::string& name, int32_t tokens, int32_t runs) {
    if (!Wants(name)) return;
    std::vector<double> ms;
    for (int32_t i = 0; i < runs; ++i) ms.push_back(FirstTokenMs(Prompt(tokens, ++seed_), nullptr));
    const double median = Quantile(ms, 0.5);
    std::printf("%-22s prompt %5d: first token after %8.2f ms (min %.2f, max %.2f), %7.1f tok/s\n",
                name.c_str(), tokens, median, Quantile(ms, 0), Quantile(ms, 1),
                1e3 * tokens / median);
    std::fflush(stdout);
  }

  // What a schema that nobody has sent before costs a request in front of its first token: the same
  // kind of prompt without one, with one that has to be compiled, and with the same one again.
  void FirstTokenOfNewSchemas(const std::string& name, int32_t tokens, int32_t runs) {
    if (!Wants(name)) return;
    Compiler();
    for (const bench::NamedSchema& schema : bench::kSchemas) {
      std::vector<double> plain, compiling, cold, kept;
      for (int32_t i = 0; i < runs; ++i) {
        plain.push_back(FirstTokenMs(Prompt(tokens, ++seed_), nullptr));
        const std::string text = bench::NewSchema(schema.kind, ++schemas_);
        for (std::vector<double>* after : {&cold, &kept}) {
          const std::vector<TokenId> prompt = Prompt(tokens, ++seed_);
          const absl::Time began = absl::Now();
          FormCompiler::Forms forms = MakeForm(text);
          const double ms = absl::ToDoubleMilliseconds(absl::Now() - began);
          if (after == &cold) compiling.push_back(ms);
          after->push_back(ms + FirstTokenMs(prompt, nullptr, std::move(forms)));
        }
      }
      const double base = Quantile(plain, 0.5);
      std::printf(
          "%-22s %-6s prompt %5d: %8.2f ms without, new %+8.2f ms (max %+.2f; compiling %.2f, max "
          "%.2f), kept %+.2f ms\n",
          name.c_str(), schema.name, tokens, base, Quantile(cold, 0.5) - base,
          Quantile(cold, 1) - base, Quantile(compiling, 0.5), Quantile(compiling, 1),
          Quantile(kept, 0.5) - base);
      std::fflush(stdout);
    }
  }

  void NextTurn(const std::string& name, int32_t cached, int32_t fresh, int32_t runs) {
    if (!Wants(name)) return;
    const std::vector<TokenId> history = Prompt(cached, ++seed_);
    FirstTokenMs(history, nullptr);
    std::vector<double> ms;
    int32_t found = 0;
    for (int32_t i = 0; i < runs; ++i) {
      std::vector<TokenId> turn = history;
      const std::vector<TokenId> more = Prompt(fresh, ++seed_);
      turn.insert(turn.end(), more.begin(), more.end());
      ms.push_back(FirstTokenMs(turn, &found));
    }
    std::printf(
        "%-22s %d cached (%d found) + %d new: first token after %8.2f ms (min %.2f, max "
        "%.2f)\n",
        name.c_str(), cached, found, fresh, Quantile(ms, 0.5), Quantile(ms, 0), Quantile(ms, 1));
    std::fflush(stdout);
  }

  // A prompt of `tokens` while `batch` streams decode.
  void PrefillBesideDecode(const std::string& name, int32_t batch, int32_t tokens) {
    if (!Wants(name)) return;
    const double solo_ms = FirstTokenMs(Prompt(tokens, ++seed_), nullptr);
    std::vector<std::shared_ptr<Clock>> clocks;
    const int32_t first = submitted_;
    for (int32_t i = 0; i < batch; ++i) clocks.push_back(Submit(Prompt(128, ++seed_), 2000));
    for (const auto& clock : clocks) clock->AwaitTokens(8);
    const absl::Time quiet_from = absl::Now();
    clocks[0]->AwaitTokens(clocks[0]->times().size() + 60);
    const absl::Time began = absl::Now();
    const auto beside = Submit(Prompt(tokens, ++seed_), 1);
    beside->AwaitEnd();
    const absl::Time ended = absl::Now();
    const double beside_ms = absl::ToDoubleMilliseconds(ended - began);
    std::vector<double> quiet, busy;
    for (const auto& clock : clocks) {
      const auto times = clock->times();
      for (const double gap : GapsMs(times, quiet_from, began)) quiet.push_back(gap);
      for (const double gap : GapsMs(times, began, ended)) busy.push_back(gap);
    }
    const double median = Quantile(quiet, 0.5);
    std::printf(
        "%-22s %d tokens beside %d streams: gaps quiet %.2f ms, busy p50 %.2f p99 %.2f max "
        "%.2f (p99 %.2fx); prefill %.0f ms, alone %.0f: %.0f %% of its rate\n",
        name.c_str(), tokens, batch, median, Quantile(busy, 0.5), Quantile(busy, 0.99),
        Quantile(busy, 1), Quantile(busy, 0.99) / median, beside_ms, solo_ms,
        100 * solo_ms / beside_ms);
    std::fflush(stdout);
    for (int32_t i = 1; i <= batch; ++i) {
      engine_->Cancel(absl::StrCat("r", first + i), [](const absl::Status&) {}).IgnoreError();
    }
    for (const auto& clock : clocks) clock->AwaitEnd();
  }

 private:
  static void AskForEverything(SamplingParams* sampling) {
    sampling->dry = {.multiplier = 0.8f, .breaker_ids = {10, 11, 12, 13}};
    sampling->xtc_probability = 0.5f;
    sampling->repetition_penalty = 1.1f;
    sampling->presence_penalty = sampling->frequency_penalty = 0.2f;
    sampling->top_logprobs = 5;
  }

  static constexpr char kEndlessList[] = R"({"type": "array", "minItems": 200, "items": {
    "type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"]}})";

  FormCompiler& Compiler() {
    if (forms_ != nullptr) return *forms_;
    const int32_t vocabulary_size = runner_->limits().vocabulary_size;
    forms_ = std::make_unique<FormCompiler>(FormCompilerConfig{.vocabulary_size = vocabulary_size},
                                            [this] { engine_->Wake(); });
    auto texts = settings_.tokenizer.empty() ? bench::SomeTokenTexts(vocabulary_size)
                                             : bench::ReadTokenizerModel(settings_.tokenizer);
    absl::Status taken = texts.status();
    absl::Notification set;
    const auto done = [&](absl::Status status) {
      taken = std::move(status);
      set.Notify();
    };
    if (taken.ok()) {
      const absl::Status asked =
          forms_->SetVocabulary(std::move(texts->tokens), std::move(texts->control_ids), done);
      if (asked.ok()) set.WaitForNotification();
      taken.Update(asked);
    }
    if (!taken.ok()) std::printf("  no vocabulary: %s\n", taken.ToString().c_str());
    return *forms_;
  }

  FormCompiler::Forms MakeForm(const std::string& schema) {
    FormCompiler::Forms made;
    absl::Notification done;
    absl::Status refused =
        Compiler().Make({.text = schema}, {}, 1, [&](absl::StatusOr<FormCompiler::Forms> forms) {
          if (forms.ok()) made = *std::move(forms);
          done.Notify();
        });
    if (refused.ok()) done.WaitForNotification();
    if (made.empty()) std::printf("  the form was refused\n");
    return made;
  }

  // What the device did, since it was last asked.
  class Meter : public ScheduleObserver {
   public:
    void OnStep(const StepShape& shape, absl::Duration) override {
      absl::MutexLock lock(&mutex_);
      sum_.busy += shape.device.busy;
      sum_.idle += shape.device.idle;
    }
    DeviceTimes Take() {
      absl::MutexLock lock(&mutex_);
      return std::exchange(sum_, {});
    }

   private:
    absl::Mutex mutex_;
    DeviceTimes sum_;
  };
  const Settings settings_;
  ModelRunner* const runner_;
  Meter observer_;
  std::unique_ptr<FormCompiler> forms_;
  std::unique_ptr<Engine> engine_;
  int32_t submitted_ = 0;
  uint32_t seed_ = 0;
  int32_t schemas_ = 0;
};

void RunAll(ServingBench& bench, int32_t context) {
  const int32_t long_prompt = std::min(7900, context - 300);
  bench.Decode("decode_b1", 1, 128, 128);
  bench.Decode("decode_b8", 8, 128, 128);
  bench.Decode("decode_b16", 16, 128, 128);
  bench.Decode("decode_b32", 32, 128, 96);
  bench.Decode("decode_b64", 64, 128, 96);
  bench.Decode("decode_b1_8k", 1, long_prompt, 64);
  bench.Decode("decode_b16_1k", 16, std::min(1024, context - 300), 64);
  using Sampling = ServingBench::Sampling;
  bench.Decode("decode_b64_samplers", 64, 128, 96, Sampling::kEverything);
  bench.Decode("decode_b16_forms", 16, 128, 128, Sampling::kForm);
  bench.FirstToken("ttft_128", 128, 5);
  bench.FirstToken("ttft_1024", std::min(1024, context - 300), 5);
  bench.FirstTokenOfNewSchemas("ttft_new_schema", 128, 9);
  bench.FirstToken("prefill_8k", long_prompt, 3);
  bench.NextTurn("next_turn", std::min(8000, context - 150), 100, 5);
  for (int i = 0; i < 3; ++i) bench.PrefillBesideDecode("prefill_beside_8", 8, long_prompt);
}

int Run(const Settings& settings) {
  const auto ranks = OpenRanks({.backend = settings.cuda ? "cuda" : "cpu",
                                .size = settings.tensor_parallel_size,
                                .nccl_library = settings.nccl_library,
                                .all_reduce = settings.all_reduce});
  if (!ranks.ok()) return std::printf("%s\n", ranks.status().ToString().c_str()), 1;
  const Device& device = *ranks->devices.front();
  LoadOptions options{.folder = settings.model,
                      .load_format = settings.random ? LoadFormat::kRandom : LoadFormat::kAuto,
                      .max_model_len = settings.max_model_len,
                      .step_bound = absl::Seconds(30)};
  if (settings.fp8) options.kv_type = KvType::kFp8;
  const absl::Time began = absl::Now();
  const std::vector<RankPlace> places = ranks->places();
  auto model = OpenModel(options, places);
  if (!model.ok()) return std::printf("%s\n", model.status().ToString().c_str()), 1;
  std::vector<MemoryLimits> memory;
  for (const auto& one : ranks->devices) {
    memory.push_back({.total_bytes = one->memory().total_bytes,
                      .available_bytes = one->memory().available_bytes,
                      .utilization = settings.utilization,
                      .kv_bytes = one->default_kv_bytes()});
  }
  auto plan =
      PlanMemory((*model)->needs(), settings.max_model_len, options.max_sequences, memory, nullptr);
  if (!plan.ok()) return std::printf("%s\n", plan.status().ToString().c_str()), 1;
  std::printf("%zu x device %s; each: %s\n", places.size(), device.name().c_str(),
              plan->Describe().c_str());
  auto runner = (*model)->Load(plan->blocks, nullptr);
  if (!runner.ok()) return std::printf("%s\n", runner.status().ToString().c_str()), 1;
  const absl::Time loaded = absl::Now();
  if (absl::Status warm = WarmUp(**runner); !warm.ok()) {
    return std::printf("%s\n", warm.ToString().c_str()), 1;
  }
  std::printf("loaded in %.2f s, warm after %.2f s more; %llu MiB left on the device\n",
              absl::ToDoubleSeconds(loaded - began), absl::ToDoubleSeconds(absl::Now() - loaded),
              static_cast<unsigned long long>(device.memory().available_bytes >> 20));
  std::fflush(stdout);
  ServingBench bench(settings, runner->get());
  RunAll(bench, settings.max_model_len);
  return 0;
}

}  // namespace
}  // namespace behemoth::worker

int main(int argc, char** argv) {
  behemoth::worker::Settings settings;
  for (int i = 1; i < argc; i += 2) {
    if (i + 1 == argc || !behemoth::worker::Parse(argv[i], argv[i + 1], &settings)) {
      std::fprintf(stderr, "unknown or bad: %s; the file's beginning says what there is\n",
                   argv[i]);
      return 2;
    }
  }
  return behemoth::worker::Run(settings);
}
