// From a folder to steps: OpenModel, Load, and what a StepPlan can ask of a ModelRunner.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <memory>

#include "tests/unit/worker/checkpoint/model_files.h"
#include "worker/runner/model_loader.h"

namespace behemoth::worker {
namespace {

using testing::HasSubstr;

LoadOptions Options(const std::string& variant = "sym_g128") {
  return {.folder = BEHEMOTH_SOURCE_DIR "/tests/models/variants/" + variant,
          .max_model_len = 128,
          .max_sequences = 4,
          .max_step_tokens = 64};
}

const Device& Cpu() {
  static const Device* const device = OpenCpu().release();
  return *device;
}

std::unique_ptr<ModelRunner> Loaded(const LoadOptions& options) {
  auto model = OpenModel(options, Cpu());
  EXPECT_TRUE(model.ok()) << model.status();
  if (!model.ok()) return nullptr;
  auto runner = (*model)->Load(8, nullptr);
  EXPECT_TRUE(runner.ok()) << runner.status();
  return runner.ok() ? *std::move(runner) : nullptr;
}

SlotBinding Binding(int32_t slot, const SamplingParams& params, int32_t sequence = 0) {
  return {.slot = SlotId{slot},
          .sequence = sequence,
          .sampling = std::make_shared<SamplingParams>(params)};
}

SamplingParams Greedy() {
  SamplingParams params;
  params.temperature = 0;
  return params;
}

// One row of `tokens` at `position`, blocks 2 s and 2 s + 1 for slot s.
void AddRow(StepPlan& plan, int32_t slot, const std::vector<TokenId>& tokens, int32_t position) {
  const int32_t count = static_cast<int32_t>(tokens.size());
  plan.rows.push_back({.first_token = static_cast<int32_t>(plan.token_ids.size()),
                       .token_count = count,
                       .position = position,
                       .first_block = static_cast<int32_t>(plan.block_ids.size()),
                       .block_count = 2,
                       .slot = SlotId{slot}});
  plan.token_ids.insert(plan.token_ids.end(), tokens.begin(), tokens.end());
  plan.block_ids.insert(plan.block_ids.end(), {BlockId{2 * slot}, BlockId{2 * slot + 1}});
}

void AddSample(StepPlan& plan, int32_t row, int32_t slot, int32_t position) {
  plan.samples.push_back({.row = row, .slot = SlotId{slot}, .position = position});
}

StepResult RunStep(ModelRunner& runner, const StepPlan& plan) {
  const absl::Status submitted = runner.Submit(plan);
  EXPECT_TRUE(submitted.ok()) << submitted;
  auto result = runner.Await();
  EXPECT_TRUE(result.ok()) << result.status();
  return result.ok() ? *std::move(result) : StepResult();
}

TEST(ModelLoaderTest, SaysWhatTheModelIsAndNeedsBeforeItReadsAWeight) {
  const auto model = OpenModel(Options("gptq_v2_asym_g128_desc_act"), Cpu());
  ASSERT_TRUE(model.ok()) << model.status();
  const ModelDescription& is = (*model)->description();
  EXPECT_EQ(is.architecture, "MistralForCausalLM");
  EXPECT_EQ(is.quantization, "gptq int4 g128 asymmetric desc_act");
  EXPECT_EQ(is.context_tokens, 128);
  EXPECT_EQ(is.weights_fingerprint.size(), 32u);
  const ModelNeeds& needs = (*model)->needs();
  // 64 tokens x 2 layers x (k and v) x 2 heads x 64 x 4 bytes.
  EXPECT_EQ(needs.block_bytes, 64u * 2 * 2 * 2 * 64 * 4);
  EXPECT_EQ(needs.blocks_for_one_context, 2);
  EXPECT_GT(needs.weight_bytes, 300'000u);
  EXPECT_TRUE(absl::IsResourceExhausted((*model)->Load(1, nullptr).status()));
}

TEST(ModelLoaderTest, ReportsProgressByLayer) {
  auto model = OpenModel(Options(), Cpu());
  ASSERT_TRUE(model.ok());
  std::vector<uint64_t> done;
  ASSERT_TRUE((*model)->Load(4, [&](const LoadProgress& p) { done.push_back(p.done_bytes); }).ok());
  const uint64_t total = (*model)->needs().weight_bytes;
  EXPECT_EQ(done, (std::vector<uint64_t>{total / 2, total}));
  EXPECT_TRUE(absl::IsFailedPrecondition((*model)->Load(4, nullptr).status()));
}

// Values stay in their files until a backend wants them; a file that changes until then is an
// error.
TEST(ModelLoaderTest, AFileCutWhileTheModelLoadsIsRefused) {
  const ModelFiles files;
  LoadOptions options = Options();
  for (const char* name : {"config.json", "model.safetensors"}) {
    std::filesystem::copy_file(options.folder + "/" + name, files.path() / name);
  }
  options.folder = files.folder();
  auto model = OpenModel(options, Cpu());
  ASSERT_TRUE(model.ok()) << model.status();
  const auto shard = files.path() / "model.safetensors";
  std::filesystem::resize_file(shard, std::filesystem::file_size(shard) / 2);
  const absl::Status status = (*model)->Load(4, nullptr).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("model.safetensors: the file ends early"));
}

TEST(ModelLoaderTest, BadOptionsNameThemselves) {
  const auto says = [](const LoadOptions& options) {
    return std::string(OpenModel(options, Cpu()).status().message());
  };
  LoadOptions o = Options();
  o.max_model_len = 1025;
  EXPECT_THAT(says(o), HasSubstr("max_model_len"));
  o = Options();
  o.max_sequences = 0;
  EXPECT_THAT(says(o), HasSubstr("max_sequences"));
  o = Options();
  o.max_step_tokens = 3;
  EXPECT_THAT(says(o), HasSubstr("max_step_tokens"));
  o = Options();
  o.folder = "/nowhere";
  EXPECT_THAT(says(o), HasSubstr("config.json"));
}

TEST(ModelLoaderTest, RandomWeightsRunAndDependOnTheSeed) {
  const auto tokens_of = [](uint64_t seed) {
    LoadOptions options = Options("sym_g32_sharded");
    options.load_format = LoadFormat::kRandom;
    options.random_seed = seed;
    const auto runner = Loaded(options);
    std::vector<TokenId> tokens;
    for (int32_t at = 0; at < 8; ++at) {
      StepPlan plan;
      if (at == 0) plan.bindings.push_back(Binding(0, Greedy()));
      AddRow(plan, 0, {at == 0 ? 1 : kPendingToken}, at);
      AddSample(plan, 0, 0, at + 1);
      const StepResult result = RunStep(*runner, plan);
      EXPECT_TRUE(result.samples[0].finite);
      tokens.push_back(result.samples[0].token);
    }
    return tokens;
  };
  EXPECT_EQ(tokens_of(1), tokens_of(1));
  EXPECT_NE(tokens_of(1), tokens_of(2));
}

// The row carries no id: the runner takes what it sampled for that slot in the step before.
TEST(ModelRunnerTest, APendingTokenIsTheSlotsLastSample) {
  const auto runner = Loaded(Options());
  ASSERT_NE(runner, nullptr);
  const std::vector<TokenId> prompt = {1, 50, 60, 70};
  std::vector<TokenId> known, pending;
  for (const bool use_pending : {false, true}) {
    std::vector<TokenId>& tokens = use_pending ? pending : known;
    StepPlan first;
    first.bindings.push_back(Binding(0, Greedy()));
    AddRow(first, 0, prompt, 0);
    AddSample(first, 0, 0, 4);
    tokens.push_back(RunStep(*runner, first).samples[0].token);
    for (int32_t at = 4; at < 12; ++at) {
      StepPlan plan;
      AddRow(plan, 0, {use_pending ? kPendingToken : tokens.back()}, at);
      AddSample(plan, 0, 0, at + 1);
      tokens.push_back(RunStep(*runner, plan).samples[0].token);
    }
  }
  EXPECT_EQ(pending, known);
}

// n sequences of a request sample from the one prompt row, each with its own Philox key.
TEST(ModelRunnerTest, SequencesOfOneRequestShareARow) {
  const auto runner = Loaded(Options());
  ASSERT_NE(runner, nullptr);
  SamplingParams params;
  params.temperature = 3;
  params.seed = 5;
  StepPlan plan;
  for (int32_t s = 0; s < 4; ++s) plan.bindings.push_back(Binding(s, params, s % 2));
  AddRow(plan, 0, {1, 20, 30}, 0);
  for (int32_t s = 0; s < 4; ++s) AddSample(plan, 0, s, 3);
  const StepResult result = RunStep(*runner, plan);
  ASSERT_EQ(result.samples.size(), 4u);
  EXPECT_EQ(result.samples[0].token, result.samples[2].token);  // same seed, sequence, position
  EXPECT_EQ(result.samples[1].token, result.samples[3].token);
  EXPECT_NE(result.samples[0].token, result.samples[1].token);
}

// A prompt's logprobs do not depend on the chunks it came in, nor on the passes they take (4 rows
// here), and are those that sampling would have reported for the same token.
TEST(ModelRunnerTest, PromptLogprobsAreThoseOfSampling) {
  const std::vector<TokenId> prompt = {1, 9, 99, 201, 47, 3, 255, 18, 77, 140};
  const int32_t size = static_cast<int32_t>(prompt.size());
  SamplingParams params = Greedy();
  params.top_logprobs = 2;
  const auto scores = [&](int32_t chunk) {
    const auto runner = Loaded(Options());
    std::vector<TokenLogprobs> all;
    for (int32_t at = 0; at < size; at += chunk) {
      const int32_t end = std::min(size, at + chunk);
      StepPlan plan;
      if (at == 0) plan.bindings.push_back(Binding(0, params));
      AddRow(plan, 0, {prompt.begin() + at, prompt.begin() + end}, at);
      plan.rows[0].prompt_logprobs = true;
      plan.rows[0].next_token = end < size ? prompt[end] : kPendingToken;
      if (end == size) AddSample(plan, 0, 0, size);
      const StepResult result = RunStep(*runner, plan);
      EXPECT_EQ(result.prompt_logprobs.size(), 1u);
      all.insert(all.end(), result.prompt_logprobs[0].begin(), result.prompt_logprobs[0].end());
    }
    return all;
  };
  const auto whole = scores(size), pieces = scores(3);
  ASSERT_EQ(whole.size(), prompt.size() - 1);
  ASSERT_EQ(pieces.size(), whole.size());

  const auto runner = Loaded(Options());
  for (int32_t at = 0; at + 1 < size; ++at) {
    SamplingParams forced = params;
    forced.allowed_ids = {prompt[at + 1]};
    StepPlan plan;
    plan.bindings.push_back(Binding(0, forced));
    AddRow(plan, 0, {prompt[at]}, at);
    AddSample(plan, 0, 0, at + 1);
    const StepResult result = RunStep(*runner, plan);
    ASSERT_TRUE(result.samples[0].logprobs);
    for (const auto* score : {&whole[at], &pieces[at]}) {
      EXPECT_EQ(score->logprob, result.samples[0].logprobs->logprob) << at;
      EXPECT_EQ(score->rank, result.samples[0].logprobs->rank) << at;
      EXPECT_EQ(score->top_ids, result.samples[0].logprobs->top_ids) << at;
    }
  }
}

TEST(ModelRunnerTest, APlanMayHoldBindingsAlone) {
  const auto runner = Loaded(Options());
  ASSERT_NE(runner, nullptr);
  StepPlan plan;
  plan.number = 7;
  plan.bindings.push_back(Binding(0, Greedy()));
  plan.copies.push_back({BlockId{0}, BlockId{1}});
  EXPECT_EQ(RunStep(*runner, plan).number, 7u);
  EXPECT_TRUE(absl::IsFailedPrecondition(runner->Await().status()));
}

}  // namespace
}  // namespace behemoth::worker
