// The real engine with the tiny checkpoint, on the CPU or, with --backend=cuda, on a GPU: 64
// requests at a time, prompts with common beginnings, callers that leave at any token; half of them
// in a pool where all can run at once, half in one where they preempt each other.
// Every text is bitwise the one of the request alone, its logprobs too; nothing leaks.
// --requests=10000 is the full number; ctest runs a part of it.
#include <absl/strings/str_cat.h>
#include <absl/synchronization/mutex.h>
#include <absl/time/clock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>

#include "tests/property/worker/walk_options.h"
#include "worker/engine/engine.h"
#include "worker/runner/model_loader.h"

namespace behemoth::worker {
namespace {

constexpr int32_t kConcurrent = 64;
constexpr int32_t kVocabulary = 4096;

// What one sequence said.
struct Said {
  std::vector<TokenId> ids;
  std::vector<float> logprobs;
  std::optional<FinishReason> finish;
};

class Listener : public TokenSink {
 public:
  Listener(int32_t sequences, int32_t leave_after, absl::Mutex* mutex)
      : said_(static_cast<size_t>(sequences)), leave_after_(leave_after), mutex_(mutex) {}

  bool Push(TokenEvent event) override {
    absl::MutexLock lock(mutex_);
    if (auto* tokens = std::get_if<TokensEvent>(&event)) {
      Said& said = said_[static_cast<size_t>(tokens->sequence)];
      said.ids.insert(said.ids.end(), tokens->ids.begin(), tokens->ids.end());
      for (const TokenLogprobs& one : tokens->logprobs) said.logprobs.push_back(one.logprob);
    } else if (auto* finish = std::get_if<FinishEvent>(&event)) {
      said_[static_cast<size_t>(finish->sequence)].finish = finish->reason;
      cached_tokens_ = finish->cached_tokens;
    }
    return true;
  }
  void Close(const absl::Status& status) override {
    absl::MutexLock lock(mutex_);
    status_ = status;
    ++closes_;
  }

  // Under the mutex.
  bool closed() const { return closes_ > 0; }
  int32_t closes() const { return closes_; }
  // The caller has had enough and has not left yet.
  bool wants_to_leave() const {
    return leave_after_ >= 0 && !left_ && static_cast<int32_t>(said_[0].ids.size()) >= leave_after_;
  }
  void Leave() { left_ = true; }
  bool left() const { return left_; }
  const std::vector<Said>& said() const { return said_; }
  const absl::Status& status() const { return status_; }
  int32_t cached_tokens() const { return cached_tokens_; }

 private:
  std::vector<Said> said_;
  const int32_t leave_after_;
  absl::Mutex* const mutex_;
  bool left_ = false;
  int32_t closes_ = 0;
  int32_t cached_tokens_ = 0;
  absl::Status status_;
};

// Read by the test once the engine has stopped.
class PressureObserver : public ScheduleObserver {
 public:
  void OnStep(const StepShape& shape, absl::Duration) override {
    most_rows = std::max<int32_t>(most_rows, shape.rows);
  }
  void OnPreemption() override { ++preemptions; }
  void OnPrefixLookup(int32_t, int32_t cached) override { cached_tokens += cached; }
  std::atomic<int32_t> preemptions = 0, cached_tokens = 0, most_rows = 0;
};

// More than what most requests ask for.
void RollSamplers(Dice& dice, SamplingParams& sampling) {
  if (dice.OneIn(2)) sampling.top_n_sigma = 2.0f;
  if (dice.OneIn(2)) sampling.typical_p = 0.9f;
  if (dice.OneIn(2)) sampling.xtc_probability = 0.5f;
  if (dice.OneIn(2)) sampling.smoothing_factor = 0.3f;
  if (dice.OneIn(3)) sampling.dynamic_temperature = DynamicTemperature{0.3f, 1.8f, 1.5f};
  if (dice.OneIn(2)) {  // temperature last
    std::rotate(sampling.order.begin(), sampling.order.begin() + 1, sampling.order.end());
  }
  if (dice.OneIn(2)) {
    sampling.dry = {.multiplier = 0.8f, .allowed_length = 1, .breaker_ids = {300, 301}};
    sampling.dry.spanning_breakers = {{.heads = {302, 303}, .tail = {304}}};
  }
  if (dice.OneIn(2)) sampling.banned_sequences = {{300, 301}, {1300, 1301, 1302}};
}

// Requests of few kinds, so that the solo run of each kind stands for all of them.
GenerationRequest RollRequest(Dice& dice) {
  GenerationRequest request;
  request.prompt.push_back(1);
  const TokenId stem = 300 + 1000 * dice.Between(0, 2);
  const int32_t stem_tokens = dice.OneIn(3) ? dice.Between(64, 100) : 0;
  for (int32_t i = 0; i < stem_tokens; ++i) request.prompt.push_back(stem + i);
  for (int32_t i = dice.Between(1, 20); i > 0; --i) {
    request.prompt.push_back(dice.Between(300, kVocabulary - 1));
  }
  request.max_tokens = dice.Between(1, 12);
  request.num_sequences = dice.OneIn(4) ? dice.Between(2, 8) : 1;
  SamplingParams& sampling = request.sampling;
  sampling.seed = static_cast<uint64_t>(dice.Between(0, 1'000'000));
  sampling.temperature = dice.OneIn(4) ? 0.0f : 0.9f;
  sampling.top_p = dice.OneIn(2) ? 0.95f : 1.0f;
  sampling.repetition_penalty = dice.OneIn(3) ? 1.1f : 1.0f;
  sampling.frequency_penalty = dice.OneIn(3) ? 0.5f : 0.0f;
  sampling.stop_ids = {2};
  if (dice.OneIn(2)) RollSamplers(dice, sampling);
  if (dice.OneIn(5)) sampling.top_logprobs = 0;
  request.cache_salt = dice.OneIn(4) ? "salt" : "";
  request.fairness_key = absl::StrCat("key", dice.Between(0, 3));
  return request;
}

// One of 64 places: a request on its way, and which kind it is of.
struct Place {
  std::string id;
  size_t kind = 0;
  std::shared_ptr<Listener> listener;
};

bool SomethingToDo(std::vector<Place>* places) {
  for (const Place& place : *places) {
    if (place.listener->closed() || place.listener->wants_to_leave()) return true;
  }
  return false;
}

// Empty, or how what was heard differs from the solo run.
std::string Difference(const Listener& heard, const std::vector<Said>& solo) {
  if (heard.closes() != 1) return "closed twice";
  if (!heard.status().ok()) return heard.status().ToString();
  for (size_t i = 0; i < solo.size(); ++i) {
    const Said& said = heard.said()[i];
    if (!said.finish) return absl::StrCat("sequence ", i, " has no finish");
    const bool whole = *said.finish != FinishReason::kCancelled;
    if (!whole && !heard.left()) return "cancelled by nobody";
    if (whole && said.finish != solo[i].finish) return "another finish";
    if (said.ids.size() > solo[i].ids.size() || (whole && said.ids.size() < solo[i].ids.size())) {
      return absl::StrCat("sequence ", i, " has ", said.ids.size(), " tokens, alone ",
                          solo[i].ids.size());
    }
    for (size_t t = 0; t < said.ids.size(); ++t) {
      if (said.ids[t] != solo[i].ids[t]) {
        return absl::StrCat("sequence ", i, ", token ", t, " is ", said.ids[t], ", alone ",
                            solo[i].ids[t]);
      }
    }
    for (size_t t = 0; t < said.logprobs.size(); ++t) {
      if (said.logprobs[t] != solo[i].logprobs[t]) {
        return absl::StrCat("sequence ", i, ", logprob ", t, " differs by ",
                            said.logprobs[t] - solo[i].logprobs[t]);
      }
    }
  }
  return "";
}

class SoloRunsTest : public ::testing::Test {
 protected:
  static constexpr int32_t kContext = 256;
  // 64 sequences with two or three blocks of 64 tokens each; little more than one context.
  static constexpr int32_t kWideBlocks = 160;
  static constexpr int32_t kNarrowBlocks = 6;

  void SetUp() override {
    if (Options().cuda) {
      auto gpu = OpenCuda(0);
      ASSERT_TRUE(gpu.ok()) << gpu.status();
      device_ = *std::move(gpu);
    } else {
      device_ = OpenCpu();
    }
    LoadOptions options{.folder = BEHEMOTH_SOURCE_DIR "/tests/models/tiny",
                        .max_model_len = kContext,
                        .max_sequences = kConcurrent,
                        .max_step_tokens = 192};
    auto model = OpenModel(options, *device_);
    ASSERT_TRUE(model.ok()) << model.status();
    auto runner = (*model)->Load(kWideBlocks, nullptr);
    ASSERT_TRUE(runner.ok()) << runner.status();
    runner_ = *std::move(runner);
  }

  std::unique_ptr<Engine> StartEngine(int32_t blocks, ScheduleObserver* observer,
                                      bool prefix_caching) {
    const RunnerLimits limits = runner_->limits();
    const SchedulerConfig config{.context_tokens = limits.context_tokens,
                                 .blocks = blocks,
                                 .tokens_per_block = limits.tokens_per_block,
                                 .max_sequences = limits.max_sequences,
                                 .max_step_tokens = limits.max_step_tokens,
                                 .pipeline_depth = limits.pipeline_depth,
                                 .prefix_caching = prefix_caching,
                                 .cache_secret = 42};
    auto engine =
        std::make_unique<Engine>(config, MailboxLimits{}, runner_.get(), observer, EngineHooks{});
    engine->Start();
    return engine;
  }

  std::shared_ptr<Listener> Submit(Engine& engine, GenerationRequest request, int32_t leave_after) {
    auto listener = std::make_shared<Listener>(request.num_sequences, leave_after, &mutex_);
    request.request_id = absl::StrCat("r", ++submitted_);
    request.sink = listener;
    const auto serial = engine.Submit(std::move(request));
    EXPECT_TRUE(serial.ok()) << serial.status();
    return listener;
  }

  std::vector<std::vector<Said>> RunEachAlone(const std::vector<GenerationRequest>& kinds) {
    PressureObserver observer;
    const auto engine = StartEngine(kWideBlocks, &observer, false);
    std::vector<std::vector<Said>> solo;
    for (const GenerationRequest& kind : kinds) {
      const auto listener = Submit(*engine, kind, -1);
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(listener.get(), &Listener::closed));
      EXPECT_TRUE(listener->status().ok()) << listener->status();
      solo.push_back(listener->said());
    }
    engine->Stop();
    return solo;
  }

  struct Phase {
    int32_t requests = 0;
    int32_t blocks = 0;
  };
  // kConcurrent at a time, each held against its kind's solo run.
  void RunTogether(Dice& dice, const Phase& phase, const std::vector<GenerationRequest>& kinds,
                   const std::vector<std::vector<Said>>& solo, PressureObserver* observer);

  absl::Mutex mutex_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<ModelRunner> runner_;
  int32_t submitted_ = 0;
};

void SoloRunsTest::RunTogether(Dice& dice, const Phase& phase,
                               const std::vector<GenerationRequest>& kinds,
                               const std::vector<std::vector<Said>>& solo,
                               PressureObserver* observer) {
  const auto engine = StartEngine(phase.blocks, observer, true);
  std::vector<Place> places;
  int32_t begun = 0, left = 0;
  const auto begin = [&] {
    const auto kind = static_cast<size_t>(dice.Between(0, static_cast<int32_t>(kinds.size()) - 1));
    const int32_t leave_after = dice.OneIn(6) ? dice.Between(0, 8) : -1;
    auto listener = Submit(*engine, kinds[kind], leave_after);
    ++begun;
    return Place{absl::StrCat("r", submitted_), kind, std::move(listener)};
  };
  while (begun < std::min(phase.requests, kConcurrent)) places.push_back(begin());
  while (!places.empty()) {
    std::vector<Place> ended;
    std::vector<std::string> leaving;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(SomethingToDo, &places));
      std::erase_if(places, [&](const Place& place) {
        if (place.listener->closed()) ended.push_back(place);
        return place.listener->closed();
      });
      for (Place& place : places) {
        if (!place.listener->wants_to_leave()) continue;
        place.listener->Leave();
        leaving.push_back(place.id);
      }
    }
    for (const std::string& id : leaving) {
      EXPECT_TRUE(engine->Cancel(id, [](const absl::Status&) {}).ok());
    }
    for (const Place& place : ended) {
      absl::MutexLock lock(&mutex_);
      ASSERT_EQ(Difference(*place.listener, solo[place.kind]), "")
          << place.id << " of kind " << place.kind << ", --seed=" << Options().seed;
      left += place.listener->left();
    }
    while (begun < phase.requests && static_cast<int32_t>(places.size()) < kConcurrent) {
      places.push_back(begin());
    }
  }
  ASSERT_TRUE(engine->Drain(absl::Now() + absl::Seconds(10)));
  engine->Stop();
  const LoadSnapshot load = engine->load();
  std::printf(
      "seed %llu: %d requests of %zu kinds in %d blocks, %d left early, %d preemptions, "
      "%d cached tokens, at most %d rows, %llu steps\n",
      static_cast<unsigned long long>(Options().seed), begun, kinds.size(), phase.blocks, left,
      observer->preemptions.load(), observer->cached_tokens.load(), observer->most_rows.load(),
      static_cast<unsigned long long>(load.steps));
  EXPECT_EQ(load.free_blocks, load.blocks);
  EXPECT_EQ(load.running_sequences, 0);
  EXPECT_EQ(load.waiting_requests, 0);
  EXPECT_EQ(load.waiting_tokens, 0);
  EXPECT_GT(left, 0);
}

TEST_F(SoloRunsTest, EveryTextIsBitwiseItsSoloRun) {
  const int32_t total = Options().requests > 0 ? Options().requests : 160;
  Dice dice(Options().seed);
  std::vector<GenerationRequest> kinds;
  for (int32_t i = 0; i < std::max(40, total / 20); ++i) kinds.push_back(RollRequest(dice));
  const std::vector<std::vector<Said>> solo = RunEachAlone(kinds);

  PressureObserver wide;
  RunTogether(dice, {.requests = total / 2, .blocks = kWideBlocks}, kinds, solo, &wide);
  EXPECT_GT(wide.most_rows, kConcurrent / 2);
  EXPECT_GT(wide.cached_tokens, 0);
  PressureObserver narrow;
  RunTogether(dice, {.requests = total - total / 2, .blocks = kNarrowBlocks}, kinds, solo, &narrow);
  EXPECT_GT(narrow.preemptions, 0);
}

}  // namespace
}  // namespace behemoth::worker
