// Many ranks behave as one runner; a rank that fails or hangs is an error of the step, in time.
#include "worker/runner/parallel_runner.h"

#include <absl/synchronization/notification.h>
#include <absl/time/clock.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <thread>

#include "tests/bench/worker/checkpoint_writer.h"
#include "tests/unit/worker/checkpoint/model_files.h"
#include "worker/engine/warm_up.h"
#include "worker/parallel/in_process_group.h"
#include "worker/ranks.h"
#include "worker/runner/model_loader.h"

namespace behemoth::worker {
namespace {

using testing::HasSubstr;

// What one rank does with a step.
struct Script {
  TokenId token = 7;
  absl::Status submit, await;
  absl::Notification* hangs_until = nullptr;
};

class ScriptedRunner : public ModelRunner {
 public:
  explicit ScriptedRunner(Script script) : script_(std::move(script)) {}
  RunnerLimits limits() const override { return {.vocabulary_size = 100, .max_sequences = 2}; }
  absl::Status Submit(const StepPlan& plan) override {
    step_ = plan.number;
    return script_.submit;
  }
  absl::StatusOr<StepResult> Await() override {
    if (script_.hangs_until != nullptr) script_.hangs_until->WaitForNotification();
    if (!script_.await.ok()) return script_.await;
    return StepResult{.number = step_, .samples = {{.token = script_.token}}};
  }

 private:
  const Script script_;
  StepNumber step_ = 0;
};

struct Together {
  explicit Together(std::vector<Script> scripts, absl::Duration bound = absl::Seconds(30))
      : groups(MakeInProcessGroup(static_cast<int32_t>(scripts.size()))) {
    std::vector<ParallelRunner::Rank> ranks;
    for (size_t i = 0; i < scripts.size(); ++i) {
      ranks.push_back({std::make_unique<ScriptedRunner>(scripts[i]), groups[i].get()});
    }
    runner = std::make_unique<ParallelRunner>(std::move(ranks), bound);
  }
  std::vector<std::unique_ptr<RankGroup>> groups;
  std::unique_ptr<ParallelRunner> runner;
};

TEST(ParallelRunnerTest, AStepRunsOnAllRanksAndIsRankZeros) {
  Together all(std::vector<Script>(4));
  EXPECT_EQ(all.runner->limits().vocabulary_size, 100);
  for (StepNumber step = 1; step <= 100; ++step) {
    ASSERT_TRUE(all.runner->Submit({.number = step}).ok());
    const auto result = all.runner->Await();
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->number, step);
    EXPECT_EQ(result->samples[0].token, 7);
  }
  EXPECT_FALSE(all.runner->stuck());
}

TEST(ParallelRunnerTest, ARanksErrorIsTheStepsAndEndsTheGroup) {
  Together all({{}, {.submit = absl::InternalError("out of order")}});
  const absl::Status submitted = all.runner->Submit({.number = 1});
  EXPECT_TRUE(absl::IsInternal(submitted));
  EXPECT_EQ(submitted.message(), "rank 1: out of order");
  EXPECT_EQ(all.runner->Await().status(), submitted);
  float value = 0;
  EXPECT_EQ(all.groups[0]->AllReduce(&value, 1, SumElement::kFloat, nullptr), submitted);
  EXPECT_FALSE(all.runner->stuck());
}

TEST(ParallelRunnerTest, RanksThatSampleDifferentTokensHaveFailed) {
  Together all({{.token = 1}, {.token = 2}});
  ASSERT_TRUE(all.runner->Submit({.number = 3}).ok());
  const absl::Status status = all.runner->Await().status();
  EXPECT_TRUE(absl::IsInternal(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("rank 1 has sampled other tokens"));
}

// The thread that does not come back is why the runner must not be destroyed yet.
TEST(ParallelRunnerTest, ARankThatHangsIsAnErrorWithinTheBound) {
  absl::Notification released;
  Together all({{}, {.hangs_until = &released}}, absl::Milliseconds(100));
  ASSERT_TRUE(all.runner->Submit({.number = 1}).ok());
  const absl::Time began = absl::Now();
  const absl::Status status = all.runner->Await().status();
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("1 of 2 ranks"));
  EXPECT_LT(absl::Now() - began, absl::Seconds(5));
  EXPECT_TRUE(all.runner->stuck());
  EXPECT_EQ(all.runner->Submit({.number = 2}), status);
  released.Notify();
  while (all.runner->stuck()) std::this_thread::yield();
}

// ---- Real models --------------------------------------------------------------------------------

constexpr int32_t kVocabulary = 512;

// Eight KV heads: up to eight ranks.
void WriteWideModel(const ModelFiles& files) {
  const auto written = bench::WriteCheckpoint({.folder = files.folder(),
                                               .shape = {.layers = 2,
                                                         .hidden_size = 256,
                                                         .intermediate_size = 1024,
                                                         .attention_heads = 8,
                                                         .kv_heads = 8,
                                                         .head_dim = 64,
                                                         .vocabulary_size = kVocabulary,
                                                         .context_tokens = 128,
                                                         .group_size = 32},
                                               .threads = 2});
  ASSERT_EQ(written.error, "");
}

LoadOptions Options(const ModelFiles& files) {
  return {.folder = files.folder(),
          .max_sequences = 2,
          .max_step_tokens = 64,
          .threads = 1,
          .step_bound = absl::Seconds(30)};
}

StepPlan Step(StepNumber number, std::vector<TokenId> tokens, int32_t position) {
  const auto count = static_cast<int32_t>(tokens.size());
  StepPlan plan{.number = number,
                .token_ids = std::move(tokens),
                .block_ids = {BlockId{0}, BlockId{1}},
                .rows = {{.token_count = count, .position = position, .block_count = 2}},
                .samples = {{.position = position + count}}};
  if (position == 0) {
    auto greedy = std::make_shared<SamplingParams>();
    greedy->temperature = 0;
    plan.bindings.push_back({.slot = SlotId{0}, .sampling = greedy});
  }
  return plan;
}

std::vector<TokenId> GreedyTokens(const ModelFiles& files, int32_t size) {
  const Ranks ranks = *OpenRanks({.backend = "cpu", .size = size});
  const auto places = ranks.places();
  auto model = OpenModel(Options(files), places);
  EXPECT_TRUE(model.ok()) << model.status();
  if (!model.ok()) return {};
  auto runner = (*model)->Load(4, nullptr);
  EXPECT_TRUE(runner.ok()) << runner.status();
  if (!runner.ok()) return {};
  EXPECT_TRUE(WarmUp(**runner).ok());
  std::vector<TokenId> tokens;
  std::vector<TokenId> next = {3, 1, 4, 1, 5, 9, 2, 6};
  int32_t position = 0;
  for (int step = 0; step < 40; ++step) {
    const auto count = static_cast<int32_t>(next.size());
    EXPECT_TRUE((*runner)->Submit(Step(step + 1, next, position)).ok());
    const auto result = (*runner)->Await();
    EXPECT_TRUE(result.ok()) << result.status();
    if (!result.ok()) return tokens;
    position += count;
    tokens.push_back(result->samples[0].token);
    next = {tokens.back()};
  }
  return tokens;
}

TEST(ParallelModelTest, TwoFourAndEightRanksHaveOneRanksTokens) {
  const ModelFiles files;
  WriteWideModel(files);
  const std::vector<TokenId> alone = GreedyTokens(files, 1);
  ASSERT_EQ(alone.size(), 40u);
  EXPECT_GT(std::set<TokenId>(alone.begin(), alone.end()).size(), 5u);
  for (const int32_t size : {2, 4, 8}) EXPECT_EQ(GreedyTokens(files, size), alone) << size;
}

// The head is the embedding, of which each rank multiplies its rows.
TEST(ParallelModelTest, ATiedHeadIsSharedToo) {
  const ModelFiles files;
  WriteWideModel(files);
  std::ifstream file(files.path() / "config.json");
  nlohmann::json config = nlohmann::json::parse(file);
  config["tie_word_embeddings"] = true;
  files.Write("config.json", config.dump());
  const std::vector<TokenId> alone = GreedyTokens(files, 1);
  for (const int32_t size : {2, 8}) EXPECT_EQ(GreedyTokens(files, size), alone) << size;
}

// Each rank has its share of weights and KV.
TEST(ParallelModelTest, ARankNeedsItsPartOfTheMemory) {
  const ModelFiles files;
  WriteWideModel(files);
  const auto needs = [&](int32_t size) {
    const Ranks ranks = *OpenRanks({.backend = "cpu", .size = size});
    const auto places = ranks.places();
    return (*OpenModel(Options(files), places))->needs();
  };
  const ModelNeeds whole = needs(1), part = needs(4);
  EXPECT_EQ(part.block_bytes * 4, whole.block_bytes);
  const uint64_t table = uint64_t{2} * 256 * kVocabulary;  // everybody's
  EXPECT_EQ(part.weight_bytes - table, (whole.weight_bytes - table) / 4);
  EXPECT_LT(part.activation_bytes, whole.activation_bytes);
}

TEST(ParallelModelTest, ARankThatFailsInAStepFailsTheStep) {
  const ModelFiles files;
  WriteWideModel(files);
  const Ranks ranks = *OpenRanks({.backend = "cpu", .size = 2, .test_fault = "1:error:3"});
  const auto places = ranks.places();
  auto model = OpenModel(Options(files), places);
  ASSERT_TRUE(model.ok()) << model.status();
  auto runner = (*model)->Load(4, nullptr);
  ASSERT_TRUE(runner.ok()) << runner.status();
  const absl::Status status = (*runner)->Submit(Step(1, {1, 2, 3}, 0));
  EXPECT_TRUE(absl::IsInternal(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("rank 1: a rank fault"));
  EXPECT_FALSE((*runner)->stuck());
}

}  // namespace
}  // namespace behemoth::worker
