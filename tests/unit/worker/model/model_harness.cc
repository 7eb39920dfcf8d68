#include "tests/unit/worker/model/model_harness.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <random>
#include <thread>
#include <utility>

#include "worker/checkpoint/checkpoint.h"
#include "worker/model/sliced_source.h"

namespace behemoth::worker {

ModelHarness::ModelHarness(const HarnessOptions& options) { Load(options); }

void ModelHarness::Load(const HarnessOptions& options) {
  auto folder = ReadModelFolder(options.folder);
  ASSERT_TRUE(folder.ok()) << folder.status();
  folder_ = *std::move(folder);
  if (options.device == nullptr) cpu_ = OpenCpu();
  std::vector<RankPlace> places = options.ranks;
  if (places.empty()) {
    places.push_back({.device = options.device == nullptr ? cpu_.get() : options.device});
  }
  const auto config = PartOf(folder_.config, static_cast<int32_t>(places.size()));
  ASSERT_TRUE(config.ok()) << config.status();
  std::vector<Part> parts(places.size());
  for (size_t rank = 0; rank < places.size(); ++rank) {
    LoadPart(options, places[rank], *config, parts[rank]);
    if (testing::Test::HasFatalFailure()) return;
  }
  parts_ = std::move(parts);
}

void ModelHarness::LoadPart(const HarnessOptions& options, const RankPlace& place,
                            const ModelConfig& config, Part& part) {
  const Device& device = *place.device;
  const BackendSpec spec = {.limits = {.vocabulary_size = config.vocabulary_size,
                                       .context_tokens = options.context_tokens,
                                       .blocks = options.blocks,
                                       .tokens_per_block = 64,
                                       .max_sequences = options.max_sequences,
                                       .max_step_tokens = options.max_step_tokens,
                                       .pipeline_depth = device.pipeline_depth()},
                            .hidden_size = config.hidden_size,
                            .layers = config.layers,
                            .attention_heads = config.attention_heads,
                            .kv_heads = config.kv_heads,
                            .head_dim = config.head_dim,
                            .rope_inverse_frequencies = config.rope_inverse_frequencies,
                            .kv_type = options.kv_type.value_or(device.default_kv_type()),
                            .threads = options.threads,
                            .group = place.group};
  auto checkpoint = Checkpoint::Open(options.folder, folder_.quantization);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  std::unique_ptr<WeightSource> source = std::make_unique<Checkpoint>(*std::move(checkpoint));
  if (place.group != nullptr) {
    source =
        std::make_unique<SlicedSource>(std::move(source), place.group->rank(), place.group->size());
  }
  auto shape = ShapeOf(config, folder_.quantization, *source);
  ASSERT_TRUE(shape.ok()) << shape.status();
  auto backend = device.Start(*shape, spec);
  ASSERT_TRUE(backend.ok()) << backend.status();
  part.backend = *std::move(backend);
  auto weights = LoadWeights(config, *source, *part.backend, nullptr);
  ASSERT_TRUE(weights.ok()) << weights.status();
  auto activations = AllocateActivations(config, spec.limits, *part.backend);
  ASSERT_TRUE(activations.ok()) << activations.status();
  part.activations = *activations;
  part.transformer =
      std::make_unique<Transformer>(config, *std::move(weights), part.activations, *part.backend);
}

StepPlan ModelHarness::PlanFor(const std::vector<Piece>& pieces) {
  StepPlan plan;
  plan.number = ++step_;
  auto greedy = std::make_shared<SamplingParams>();
  greedy->temperature = 0;
  for (const Piece& piece : pieces) {
    const SlotId slot{piece.slot};
    if (piece.position == 0) plan.bindings.push_back({.slot = slot, .sampling = greedy});
    plan.rows.push_back({.first_token = static_cast<int32_t>(plan.token_ids.size()),
                         .token_count = static_cast<int32_t>(piece.tokens.size()),
                         .position = piece.position,
                         .first_block = static_cast<int32_t>(plan.block_ids.size()),
                         .block_count = static_cast<int32_t>(piece.blocks.size()),
                         .slot = slot,
                         .output_count = piece.output_count});
    plan.token_ids.insert(plan.token_ids.end(), piece.tokens.begin(), piece.tokens.end());
    plan.block_ids.insert(plan.block_ids.end(), piece.blocks.begin(), piece.blocks.end());
    if (!piece.sample) continue;
    plan.samples.push_back({.row = static_cast<int32_t>(plan.rows.size()) - 1,
                            .slot = slot,
                            .position = piece.position + static_cast<int32_t>(piece.tokens.size()),
                            .mask = MaskOf(piece.allowed)});
  }
  return plan;
}

std::shared_ptr<const TokenMask> ModelHarness::MaskOf(const std::vector<TokenId>& allowed) const {
  if (allowed.empty()) return nullptr;
  TokenMask mask((static_cast<size_t>(vocabulary_size()) + 31) / 32);
  for (const TokenId id : allowed) mask[static_cast<size_t>(id) / 32] |= 1u << (id % 32);
  return std::make_shared<const TokenMask>(std::move(mask));
}

absl::Status ModelHarness::Verdict(const std::vector<Piece>& pieces) {
  return parts_.front().backend->RunStep(PlanFor(pieces), [](int32_t) {});
}

void ModelHarness::CopyBlock(BlockId from, BlockId to) {
  StepPlan plan;
  plan.number = ++step_;
  plan.copies.push_back({from, to});
  for (const Part& part : parts_) {
    const absl::Status ran =
        part.backend->RunStep(plan, [](int32_t) { ADD_FAILURE() << "no tokens"; });
    EXPECT_TRUE(ran.ok()) << ran;
    EXPECT_TRUE(part.backend->Collect().ok());
  }
}

void ModelHarness::StepOnPart(const StepPlan& plan, Part& part) {
  part.logits.clear();
  const absl::Status ran =
      part.backend->RunStep(plan, [&part](int32_t tokens) { part.transformer->Forward(tokens); });
  EXPECT_TRUE(ran.ok()) << ran;
  if (!ran.ok()) return;
  auto result = part.backend->Collect();
  EXPECT_TRUE(result.ok()) << result.status();
  if (!result.ok()) return;
  part.result = *std::move(result);
  // Greedy sampling without masks leaves the row as the model made it.
  const int32_t rows = static_cast<int32_t>(plan.samples.size());
  auto logits = part.backend->ReadLogits(part.activations.logits.FirstRows(rows));
  EXPECT_TRUE(logits.ok()) << logits.status();
  if (logits.ok()) part.logits = *std::move(logits);
}

std::vector<std::vector<float>> ModelHarness::Step(const std::vector<Piece>& pieces) {
  const StepPlan plan = PlanFor(pieces);
  std::vector<std::thread> threads;
  for (size_t rank = 1; rank < parts_.size(); ++rank) {
    threads.emplace_back([&, rank] { StepOnPart(plan, parts_[rank]); });
  }
  StepOnPart(plan, parts_.front());
  for (std::thread& thread : threads) thread.join();
  const std::vector<float>& all = parts_.front().logits;
  const auto bits = [](float logit) { return std::bit_cast<uint32_t>(logit); };
  for (const Part& part : parts_) {
    EXPECT_TRUE(std::ranges::equal(part.logits, all, {}, bits, bits)) << "two ranks differ";
  }
  result_ = parts_.front().result;
  std::vector<std::vector<float>> logits;
  for (auto row = all.begin(); row < all.end(); row += vocabulary_size()) {
    logits.emplace_back(row, row + vocabulary_size());
  }
  return logits;
}

std::vector<SampleResult> ModelHarness::StepThenOneWithLateMasks(const std::vector<Piece>& first,
                                                                 const std::vector<Piece>& second) {
  Part& part = parts_.front();
  const StepPlan early = PlanFor(first);
  StepPlan late = PlanFor(second);
  late.late_masks = std::make_shared<MaskGate>();
  MaskGate::Masks masks;
  for (StepSample& sample : late.samples) {
    sample.late_mask = sample.mask != nullptr;
    if (sample.late_mask) masks.push_back(std::exchange(sample.mask, nullptr));
  }
  for (const StepPlan& plan : {early, late}) {
    const absl::Status ran =
        part.backend->RunStep(plan, [&](int32_t tokens) { part.transformer->Forward(tokens); });
    EXPECT_TRUE(ran.ok()) << ran;
  }
  EXPECT_TRUE(part.backend->Collect().ok());
  late.late_masks->Open(std::move(masks));
  auto result = part.backend->Collect();
  EXPECT_TRUE(result.ok()) << result.status();
  return result.ok() ? result->samples : std::vector<SampleResult>();
}

std::vector<float> ModelHarness::LogitsAfter(const std::vector<TokenId>& tokens, int32_t chunk) {
  const int32_t count = static_cast<int32_t>(tokens.size());
  std::vector<std::vector<float>> logits;
  for (int32_t at = 0; at < count; at += chunk) {
    const int32_t end = std::min(count, at + chunk);
    logits = Step({{.tokens = {tokens.begin() + at, tokens.begin() + end},
                    .position = at,
                    .blocks = Table(0, (count + 63) / 64),
                    .sample = end == count}});
  }
  return logits.empty() ? std::vector<float>() : logits.front();
}

std::vector<BlockId> ModelHarness::Table(int32_t first, int32_t count) {
  std::vector<BlockId> table;
  for (int32_t i = 0; i < count; ++i) table.push_back(BlockId{first + i});
  return table;
}

std::vector<TokenId> SomeTokens(int32_t count, int32_t vocabulary_size, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<TokenId> tokens(count);
  for (TokenId& token : tokens) token = static_cast<TokenId>(random() % vocabulary_size);
  return tokens;
}

}  // namespace behemoth::worker
