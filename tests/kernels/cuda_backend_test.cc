// The worker's cuda backend against itself: a row's bits are its own, whatever it is computed with;
// and what it does with what it cannot compute. Against the reference: cuda_golden_test.cc.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/unit/worker/checkpoint/model_files.h"
#include "tests/unit/worker/model/model_harness.h"

namespace behemoth::worker {
namespace {

const Device* Gpu() {
  static const auto device = OpenCuda(0);
  return device.ok() ? device->get() : nullptr;
}

std::string Source(const std::string& path) { return std::string(BEHEMOTH_SOURCE_DIR "/") + path; }

class CudaBackendTest : public testing::Test {
 protected:
  void SetUp() override {
    if (Gpu() == nullptr) GTEST_SKIP() << "no CUDA device on this machine";
  }
};

constexpr int32_t kSlots = 64;
constexpr int32_t kBlocksEach = 4;

HarnessOptions Wide() {
  return {.folder = Source("tests/models/tiny"),
          .device = Gpu(),
          .max_sequences = kSlots,
          .max_step_tokens = 512,
          .blocks = kSlots * kBlocksEach + 8};
}

std::vector<BlockId> TableOf(int32_t slot) {
  return ModelHarness::Table(slot * kBlocksEach, kBlocksEach);
}

int32_t LengthOf(int32_t slot) { return 5 + 37 * slot % 150; }

std::vector<TokenId> PromptOf(const ModelHarness& model, int32_t slot) {
  return SomeTokens(LengthOf(slot), model.vocabulary_size(), 100 + static_cast<uint32_t>(slot));
}

// Slot `slot`'s prompt, then its `outputs` one by one, alone: the logits after each output.
std::vector<std::vector<float>> Alone(ModelHarness& model, int32_t slot,
                                      const std::vector<TokenId>& outputs) {
  model.Step({{.slot = slot, .tokens = PromptOf(model, slot), .blocks = TableOf(slot)}});
  std::vector<std::vector<float>> logits;
  int32_t position = LengthOf(slot);
  for (const TokenId output : outputs) {
    auto step = model.Step({{.slot = slot,
                             .tokens = {output},
                             .position = position++,
                             .blocks = TableOf(slot),
                             .output_count = 1}});
    if (step.empty()) return {};
    logits.push_back(std::move(step.front()));
  }
  return logits;
}

testing::AssertionResult SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size() || a.empty()) return testing::AssertionFailure() << "sizes";
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0) {
      return testing::AssertionFailure() << "logit " << i << ": " << a[i] << " and " << b[i];
    }
  }
  return testing::AssertionSuccess();
}

TEST_F(CudaBackendTest, ARowsBitsAreTheSameAloneAndInEveryBatch) {
  ModelHarness model(Wide());
  ASSERT_TRUE(model.ok());
  std::vector<std::vector<float>> alone;
  for (int32_t slot = 0; slot < kSlots; ++slot) {
    auto logits = Alone(model, slot, {7 + slot});
    ASSERT_EQ(logits.size(), 1u);
    alone.push_back(std::move(logits.front()));
  }
  for (const int32_t batch : {2, 3, 8, 9, 16, 31, 32, 33, 64}) {
    std::vector<Piece> pieces;
    for (int32_t slot = 0; slot < batch; ++slot) {
      pieces.push_back({.slot = slot,
                        .tokens = {7 + slot},
                        .position = LengthOf(slot),
                        .blocks = TableOf(slot),
                        .output_count = 1});
    }
    const auto together = model.Step(pieces);
    ASSERT_EQ(together.size(), static_cast<size_t>(batch));
    for (int32_t slot = 0; slot < batch; ++slot) {
      ASSERT_TRUE(SameBits(together[static_cast<size_t>(slot)], alone[static_cast<size_t>(slot)]))
          << "batch " << batch << " slot " << slot;
    }
  }
}

TEST_F(CudaBackendTest, ADecodeRowsBitsAreTheSameBesideAPrefill) {
  ModelHarness model(Wide());
  ASSERT_TRUE(model.ok());
  for (const int32_t prompt_tokens : {1, 60, 100, 200}) {
    const auto alone = Alone(model, 0, {11});
    ASSERT_EQ(alone.size(), 1u);
    const std::vector<TokenId> other = SomeTokens(prompt_tokens, model.vocabulary_size(), 9);
    const auto together = model.Step({{.slot = 0,
                                       .tokens = {11},
                                       .position = LengthOf(0),
                                       .blocks = TableOf(0),
                                       .output_count = 1},
                                      {.slot = 1, .tokens = other, .blocks = TableOf(1)}});
    ASSERT_EQ(together.size(), 2u);
    EXPECT_TRUE(SameBits(together[0], alone[0])) << prompt_tokens << " tokens beside it";
    const auto prefill = model.Step({{.slot = 1, .tokens = other, .blocks = TableOf(1)}});
    EXPECT_TRUE(SameBits(together[1], prefill[0])) << prompt_tokens << " tokens of prefill";
  }
}

TEST_F(CudaBackendTest, APromptsBitsDoNotDependOnItsChunks) {
  ModelHarness model(Wide());
  ASSERT_TRUE(model.ok());
  const std::vector<TokenId> tokens = SomeTokens(200, model.vocabulary_size(), 3);
  const std::vector<float> whole = model.LogitsAfter(tokens, 256);
  for (const int32_t chunk : {1, 7, 64, 100, 199}) {
    EXPECT_TRUE(SameBits(model.LogitsAfter(tokens, chunk), whole)) << "chunks of " << chunk;
  }
}

// A preempted sequence comes back as one row: prompt and outputs together.
TEST_F(CudaBackendTest, BitsAreTheSameAfterAPreemption) {
  ModelHarness model(Wide());
  ASSERT_TRUE(model.ok());
  std::vector<TokenId> outputs = SomeTokens(90, model.vocabulary_size(), 21);
  const auto alone = Alone(model, 5, outputs);
  ASSERT_EQ(alone.size(), outputs.size());
  std::vector<TokenId> all = PromptOf(model, 5);
  all.insert(all.end(), outputs.begin(), outputs.end());
  const auto again = model.Step({{.slot = 9,
                                  .tokens = all,
                                  .blocks = TableOf(9),
                                  .output_count = static_cast<int32_t>(outputs.size())}});
  ASSERT_EQ(again.size(), 1u);
  EXPECT_TRUE(SameBits(again[0], alone.back()));
  const TokenId next = model.result().samples[0].token;
  const auto after = model.Step({{.slot = 9,
                                  .tokens = {next},
                                  .position = static_cast<int32_t>(all.size()),
                                  .blocks = TableOf(9),
                                  .output_count = 1}});
  const auto after_alone = model.Step({{.slot = 5,
                                        .tokens = {next},
                                        .position = static_cast<int32_t>(all.size()),
                                        .blocks = TableOf(5),
                                        .output_count = 1}});
  ASSERT_EQ(after.size(), 1u);
  EXPECT_TRUE(SameBits(after[0], after_alone[0]));
}

TEST_F(CudaBackendTest, ACopiedBlockServesAsTheOriginal) {
  ModelHarness model(Wide());
  ASSERT_TRUE(model.ok());
  const std::vector<TokenId> tokens = SomeTokens(100, model.vocabulary_size(), 3);
  model.Step({{.slot = 0, .tokens = tokens, .blocks = TableOf(0)}});
  model.CopyBlock(TableOf(0)[1], TableOf(1)[1]);
  std::vector<std::vector<float>> logits;
  for (const int32_t second : {1, 5}) {
    const std::vector<BlockId> table = {BlockId{0}, BlockId{second}};
    const auto step = model.Step(
        {{.slot = 0, .tokens = {5}, .position = 100, .blocks = table, .output_count = 1}});
    ASSERT_EQ(step.size(), 1u);
    logits.push_back(step[0]);
  }
  EXPECT_TRUE(SameBits(logits[0], logits[1]));
}

// A recorded step serves steps with and without masks: each shape runs in all three ways, twice.
TEST_F(CudaBackendTest, AMaskIsItsOwnSamplesAndItsOwnSteps) {
  HarnessOptions options = Wide();
  options.max_step_tokens = 2048;
  ModelHarness model(options);
  ASSERT_TRUE(model.ok());
  constexpr int32_t kBatch = 9;
  const auto pieces_with = [&](const std::vector<int32_t>& masked, TokenId shift) {
    std::vector<Piece> pieces;
    for (int32_t slot = 0; slot < kBatch; ++slot) {
      pieces.push_back({.slot = slot, .tokens = PromptOf(model, slot), .blocks = TableOf(slot)});
      if (std::count(masked.begin(), masked.end(), slot) == 0) continue;
      const TokenId last = model.vocabulary_size() - 1;
      pieces.back().allowed = {(31 + slot) * shift, last - 5 * shift, last - slot};
    }
    return pieces;
  };
  const auto best_of = [](const std::vector<float>& logits, std::vector<TokenId> ids) {
    std::sort(ids.begin(), ids.end());
    return *std::max_element(ids.begin(), ids.end(), [&](TokenId a, TokenId b) {
      return logits[static_cast<size_t>(a)] < logits[static_cast<size_t>(b)];
    });
  };
  const auto free_run = pieces_with({}, 0);
  const std::vector<std::vector<float>> logits = model.Step(free_run);
  ASSERT_EQ(logits.size(), static_cast<size_t>(kBatch));
  const std::vector<SampleResult> free = model.result().samples;

  for (const TokenId shift : {1, 2}) {
    for (const std::vector<int32_t>& masked : {std::vector<int32_t>{4, 8}, {}, {0, 1, 2, 8}}) {
      const auto pieces = pieces_with(masked, shift);
      ASSERT_FALSE(model.Step(pieces).empty());
      for (size_t slot = 0; slot < kBatch; ++slot) {
        const TokenId wanted = pieces[slot].allowed.empty()
                                   ? free[slot].token
                                   : best_of(logits[slot], pieces[slot].allowed);
        EXPECT_EQ(model.result().samples[slot].token, wanted) << "slot " << slot;
      }
    }
  }
}

// A decode step, which is recorded, and one beside a prefill, which is not: the token before is on
// the device until the mask comes.
TEST_F(CudaBackendTest, AMaskMayComeWhileItsStepRuns) {
  ModelHarness model(Wide());
  ASSERT_TRUE(model.ok());
  const TokenId last = model.vocabulary_size() - 1;
  for (const bool beside_prefill : {false, true, false}) {
    const std::vector<TokenId> prompt = PromptOf(model, 0);
    model.Step({{.slot = 0, .tokens = prompt, .blocks = TableOf(0)}});
    const TokenId first = model.result().samples[0].token;
    const auto decode = [&](TokenId token, int32_t position, std::vector<TokenId> allowed) {
      return Piece{.slot = 0,
                   .tokens = {token},
                   .position = position,
                   .blocks = TableOf(0),
                   .output_count = 1,
                   .allowed = std::move(allowed)};
    };
    std::vector<Piece> second = {decode(kPendingToken, LengthOf(0) + 1, {last - 3, 17, last - 40})};
    if (beside_prefill) {
      second.push_back({.slot = 3, .tokens = PromptOf(model, 3), .blocks = TableOf(3)});
    }
    const auto sampled = model.StepThenOneWithLateMasks({decode(first, LengthOf(0), {})}, second);
    ASSERT_EQ(sampled.size(), second.size());
    // The same, one step after the other.
    model.Step({decode(first, LengthOf(0), {})});
    const TokenId next = model.result().samples[0].token;
    model.Step({decode(next, LengthOf(0) + 1, {last - 3, 17, last - 40})});
    EXPECT_EQ(sampled[0].token, model.result().samples[0].token);
  }
}

TEST_F(CudaBackendTest, AStepBeyondTheLimitsIsRefused) {
  ModelHarness model(Wide());
  ASSERT_TRUE(model.ok());
  EXPECT_TRUE(absl::IsInternal(model.Verdict({{.slot = kSlots, .tokens = {1}, .blocks = {}}})));
  EXPECT_TRUE(
      absl::IsInternal(model.Verdict({{.slot = 0, .tokens = {1}, .blocks = {BlockId{1 << 20}}}})));
}

// The tiny checkpoint with a NaN in the embedding of one token.
std::string PoisonedFolder(TokenId token) {
  namespace fs = std::filesystem;
  const fs::path folder = fs::path(testing::TempDir()) / "poisoned_checkpoint";
  fs::remove_all(folder);
  fs::copy(Source("tests/models/tiny"), folder);
  std::fstream file(folder / "model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
  uint64_t header_bytes = 0;
  file.read(reinterpret_cast<char*>(&header_bytes), sizeof(header_bytes));
  std::string header(header_bytes, ' ');
  file.read(header.data(), static_cast<std::streamsize>(header_bytes));
  const auto table = nlohmann::json::parse(header)["model.embed_tokens.weight"];
  EXPECT_EQ(table["dtype"], "BF16");
  const int64_t begin = table["data_offsets"][0], columns = table["shape"][1];
  const uint16_t nan = 0x7fc0;
  file.seekp(static_cast<std::streamoff>(8 + header_bytes) + begin + 2 * token * columns);
  file.write(reinterpret_cast<const char*>(&nan), sizeof(nan));
  EXPECT_TRUE(file.good());
  return folder;
}

TEST_F(CudaBackendTest, LogitsThatAreNotFiniteAreTheirOwnRowsOnly) {
  constexpr TokenId kPoison = 17;
  HarnessOptions options = Wide();
  options.folder = PoisonedFolder(kPoison);
  ModelHarness model(options);
  ASSERT_TRUE(model.ok());
  const std::vector<TokenId> clean = {5, 6, 7, 8}, poisoned = {5, kPoison, 7, 8};
  const auto alone = model.Step({{.slot = 0, .tokens = clean, .blocks = TableOf(0)}});
  ASSERT_EQ(alone.size(), 1u);
  EXPECT_TRUE(model.result().samples[0].finite);
  const auto together = model.Step({{.slot = 1, .tokens = poisoned, .blocks = TableOf(1)},
                                    {.slot = 0, .tokens = clean, .blocks = TableOf(0)}});
  ASSERT_EQ(together.size(), 2u);
  EXPECT_FALSE(model.result().samples[0].finite);
  EXPECT_TRUE(model.result().samples[1].finite);
  EXPECT_TRUE(SameBits(together[1], alone[0]));
  // Decode, with the NaN in one row's keys and values.
  const auto decode = model.Step(
      {{.slot = 1, .tokens = {9}, .position = 4, .blocks = TableOf(1), .output_count = 1},
       {.slot = 0, .tokens = {9}, .position = 4, .blocks = TableOf(0), .output_count = 1}});
  ASSERT_EQ(decode.size(), 2u);
  EXPECT_FALSE(model.result().samples[0].finite);
  EXPECT_TRUE(model.result().samples[1].finite);
  // Who comes after in the same slot and the same blocks sees nothing of it.
  const auto after = model.Step({{.slot = 1, .tokens = clean, .blocks = TableOf(1)}});
  ASSERT_EQ(after.size(), 1u);
  EXPECT_TRUE(SameBits(after[0], alone[0]));
}

TEST_F(CudaBackendTest, Fp8KeysAndValuesStayNearBf16Ones) {
  HarnessOptions options = Wide();
  ModelHarness exact(options);
  options.kv_type = KvType::kFp8;
  ModelHarness narrow(options);
  ASSERT_TRUE(exact.ok() && narrow.ok());
  const std::vector<TokenId> tokens = SomeTokens(200, exact.vocabulary_size(), 3);
  const std::vector<float> a = exact.LogitsAfter(tokens, 256), b = narrow.LogitsAfter(tokens, 256);
  ASSERT_EQ(a.size(), b.size());
  double difference = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    size += a[i] * a[i];
  }
  // e4m3 keeps 3 bits: 2^-4 of each key and value, averaged over many.
  EXPECT_LT(std::sqrt(difference / size), 0x1p-4);
  EXPECT_GT(difference, 0);
}

// The tiny checkpoint with scales of keys and values for each layer.
void WriteScaledCheckpoint(const ModelFiles& files, float scale) {
  for (const auto& entry : std::filesystem::directory_iterator(Source("tests/models/tiny"))) {
    std::filesystem::copy(entry.path(), files.path(), std::filesystem::copy_options::recursive);
  }
  nlohmann::json config = nlohmann::json::parse(std::ifstream(files.path() / "config.json"));
  config["quantization_config"]["kv_cache_scheme"] = {
      {"num_bits", 8}, {"type", "float"}, {"strategy", "tensor"}, {"dynamic", false}};
  files.Write("config.json", config.dump());
  std::vector<FileTensor> scales;
  nlohmann::json map;
  for (int layer = 0; layer < config["num_hidden_layers"].get<int>(); ++layer) {
    for (const char* name : {"k_scale", "v_scale"}) {
      const std::string tensor =
          "model.layers." + std::to_string(layer) + ".self_attn." + std::string(name);
      scales.push_back({tensor, "F32", {1}, BytesOf<float>({scale})});
      map[tensor] = "scales.safetensors";
    }
  }
  files.WriteTensors("scales.safetensors", scales);
  std::ifstream weights(files.path() / "model.safetensors", std::ios::binary);
  uint64_t header_bytes = 0;
  weights.read(reinterpret_cast<char*>(&header_bytes), sizeof(header_bytes));
  std::string header(header_bytes, ' ');
  weights.read(header.data(), static_cast<std::streamsize>(header_bytes));
  const nlohmann::json tensors = nlohmann::json::parse(header);
  for (const auto& [name, tensor] : tensors.items()) {
    if (name != "__metadata__") map[name] = "model.safetensors";
  }
  files.Write("model.safetensors.index.json", nlohmann::json{{"weight_map", map}}.dump());
}

// A power of two moves e4m3's range and rounds like 1 does: the same logits, as long as no value
// leaves the range. A scale that pushes values under e4m3's smallest makes others.
TEST_F(CudaBackendTest, ScalesOfKeysAndValuesComeFromTheCheckpoint) {
  const auto logits_at = [](float scale) {
    const ModelFiles files;
    WriteScaledCheckpoint(files, scale);
    HarnessOptions options = Wide();
    options.folder = files.folder();
    options.kv_type = KvType::kFp8;
    ModelHarness model(options);
    return model.ok() ? model.LogitsAfter(SomeTokens(100, model.vocabulary_size(), 3), 256)
                      : std::vector<float>();
  };
  HarnessOptions options = Wide();
  options.kv_type = KvType::kFp8;
  ModelHarness plain(options);
  ASSERT_TRUE(plain.ok());
  const auto unscaled = plain.LogitsAfter(SomeTokens(100, plain.vocabulary_size(), 3), 256);
  EXPECT_TRUE(SameBits(logits_at(1.0f), unscaled));
  EXPECT_FALSE(SameBits(logits_at(4096.0f), unscaled));
}

}  // namespace
}  // namespace behemoth::worker
