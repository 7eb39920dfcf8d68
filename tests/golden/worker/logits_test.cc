// Logits and greedy tokens against Hugging Face transformers, over the same dequantized weights.
// Format of the golden files: tests/models/README.md.
//
// Bound. Both sides compute in float. A dot product of k terms differs between two orders of
// summation by a random walk of k roundings: about sqrt(k) eps of its size. 7 L + 1 projections
// stand between a token and its logits, each adding that much on either side, and RMSNorm carries
// relative errors on at the same size:
//   |logit - golden| <= 2 (7 L + 1) sqrt(k_max) eps max|golden|,   eps = 2^-24
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/unit/worker/model/model_harness.h"

namespace behemoth::worker {
namespace {

using Json = nlohmann::json;

struct GoldenCase {
  std::string name, folder, json;
};

std::string Source(const std::string& path) { return std::string(BEHEMOTH_SOURCE_DIR "/") + path; }

GoldenCase Variant(const std::string& name) {
  const std::string folder = Source("tests/models/variants/" + name);
  return {name, folder, folder + "/golden.json"};
}

std::vector<float> ReadFloats(const std::string& path, int64_t offset, size_t count) {
  std::vector<float> floats(count);
  std::ifstream file(path, std::ios::binary);
  file.seekg(offset);
  file.read(reinterpret_cast<char*>(floats.data()), static_cast<std::streamsize>(4 * count));
  EXPECT_TRUE(file.good()) << path;
  return floats;
}

float Largest(const std::vector<float>& values) {
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::fabs(value));
  return largest;
}

float Bound(const ModelConfig& config, float largest) {
  const float k = static_cast<float>(
      std::max({config.hidden_size, config.intermediate_size, config.query_size()}));
  const float projections = 7.0f * static_cast<float>(config.layers) + 1;
  return 2 * projections * std::sqrt(k) * 0x1p-24f * largest;
}

class GoldenTest : public testing::TestWithParam<GoldenCase> {
 protected:
  void SetUp() override {
    std::ifstream file(GetParam().json);
    ASSERT_TRUE(file.good()) << GetParam().json;
    golden_ = Json::parse(file);
    ASSERT_FALSE(golden_["prompts"].empty());
  }
  std::string BinFile(const Json& prompt) const {
    const std::string& json = GetParam().json;
    return json.substr(0, json.rfind('/') + 1) + prompt["logits"]["file"].get<std::string>();
  }
  Json golden_;
};

TEST_P(GoldenTest, LogitsAreWithinTheBoundOfTheReference) {
  ModelHarness model({.folder = GetParam().folder});
  ASSERT_TRUE(model.ok());
  float worst = 0, bound = 0;
  for (const Json& prompt : golden_["prompts"]) {
    const auto ids = prompt["ids"].get<std::vector<TokenId>>();
    const auto positions = prompt["positions"].get<std::vector<int32_t>>();
    const size_t vocabulary = model.vocabulary_size();
    const std::vector<float> golden =
        ReadFloats(BinFile(prompt), prompt["logits"]["offset"], positions.size() * vocabulary);
    for (size_t i = 0; i < positions.size(); ++i) {
      const std::vector<float> expected(golden.begin() + i * vocabulary,
                                        golden.begin() + (i + 1) * vocabulary);
      const std::vector<float> logits =
          model.LogitsAfter({ids.begin(), ids.begin() + positions[i] + 1}, /*chunk=*/256);
      const float limit = Bound(model.config(), Largest(expected));
      bound = std::max(bound, limit);
      for (size_t id = 0; id < vocabulary; ++id) {
        const float error = std::fabs(logits[id] - expected[id]);
        worst = std::max(worst, error);
        ASSERT_LE(error, limit) << "position " << positions[i] << " id " << id;
      }
    }
  }
  RecordProperty("worst_error", std::to_string(worst));
  std::cout << GetParam().name << ": worst error " << worst << ", bound " << bound << "\n";
}

TEST_P(GoldenTest, GreedyTokensAreTheReferenceS) {
  ModelHarness model({.folder = GetParam().folder});
  ASSERT_TRUE(model.ok());
  for (const Json& prompt : golden_["prompts"]) {
    auto ids = prompt["ids"].get<std::vector<TokenId>>();
    const auto greedy = prompt["greedy"].get<std::vector<TokenId>>();
    const auto margins = prompt["margins"].get<std::vector<float>>();
    ASSERT_EQ(greedy.size(), margins.size());
    const auto table = ModelHarness::Table(0, 4);
    std::vector<std::vector<float>> logits = model.Step({{.tokens = ids, .blocks = table}});
    for (size_t step = 0; step < greedy.size(); ++step) {
      const TokenId token = model.result().samples[0].token;
      const float limit = 2 * Bound(model.config(), Largest(logits[0]));
      if (margins[step] > limit) {
        ASSERT_EQ(token, greedy[step]) << "step " << step << " margin " << margins[step];
      }
      // A near tie may fall either way: go on from the reference's choice.
      logits = model.Step({{.tokens = {greedy[step]},
                            .position = static_cast<int32_t>(ids.size() + step),
                            .blocks = table}});
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Checkpoints, GoldenTest,
    testing::Values(GoldenCase{"tiny", Source("tests/models/tiny"),
                               Source("tests/golden/data/tiny_logits.json")},
                    Variant("sym_g128"), Variant("asym_g128"), Variant("asym_g64_actorder_static"),
                    Variant("sym_g128_mixed"), Variant("sym_g32_sharded"),
                    Variant("sym_g64_tied_head128"), Variant("sym_g128_head128"),
                    Variant("sym_channel"), Variant("sym_g32_actorder_group_head128"),
                    Variant("asym_g64_actorder_group_bytes"), Variant("gptq_v1_sym_g128"),
                    Variant("gptq_v1_sym_g64_desc_act_f16"), Variant("gptq_v1_asym_g32"),
                    Variant("gptq_v2_asym_g32"), Variant("gptq_v2_asym_g128_desc_act"),
                    Variant("plain_bf16"), Variant("plain_f16_sharded")),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace behemoth::worker
