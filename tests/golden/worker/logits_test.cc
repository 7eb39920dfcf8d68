// Logits and greedy tokens against Hugging Face transformers, over the same dequantized weights.
// Format of the golden files: tests/models/README.md.
//
// Bound. Both sides compute in float, and round in orders of their own. rounding_device.h says what
// each operation's roundings add, from its k and epsilon; the model runs with that much noise
// behind every operation, and the root mean square of what this moves a row's logits, over
// kNoisyRuns runs and the whole vocabulary, is the standard deviation that the difference of two
// right computations has. The bound is kSafety of them. The largest of a million normal draws
// is 4.9; the rest is for logits that lie further out than their row's mean, and for roundings that
// are not independent.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/golden/worker/rounding_device.h"
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

constexpr int kNoisyRuns = 6;
constexpr float kSafety = 8;

using Rows = std::vector<std::vector<float>>;

// The model under noise, several times. Steps go to all of them.
class NoisyModels {
 public:
  explicit NoisyModels(const std::string& folder) {
    for (uint32_t seed = 1; seed <= kNoisyRuns; ++seed) {
      devices_.push_back(OpenRoundingCpu(seed));
      models_.push_back(std::make_unique<ModelHarness>(
          HarnessOptions{.folder = folder, .device = devices_.back().get(), .threads = 1}));
    }
  }

  // How far from `clean` two right computations of the same step may lie.
  float Bound(const std::vector<float>& clean,
              const std::function<std::vector<float>(ModelHarness&)>& step) {
    double squares = 0;
    for (auto& model : models_) {
      const std::vector<float> noisy = step(*model);
      for (size_t id = 0; id < clean.size(); ++id) {
        squares += std::pow(static_cast<double>(noisy[id]) - clean[id], 2);
      }
    }
    return kSafety *
           static_cast<float>(std::sqrt(squares / static_cast<double>(clean.size() * kNoisyRuns)));
  }

 private:
  std::vector<std::unique_ptr<Device>> devices_;
  std::vector<std::unique_ptr<ModelHarness>> models_;
};

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
  NoisyModels noisy(GetParam().folder);
  float worst = 0, bound = 0, tightest = 0;
  for (const Json& prompt : golden_["prompts"]) {
    const auto ids = prompt["ids"].get<std::vector<TokenId>>();
    const auto positions = prompt["positions"].get<std::vector<int32_t>>();
    const size_t vocabulary = model.vocabulary_size();
    const std::vector<float> golden =
        ReadFloats(BinFile(prompt), prompt["logits"]["offset"], positions.size() * vocabulary);
    for (size_t i = 0; i < positions.size(); ++i) {
      const std::vector<float> expected(golden.begin() + i * vocabulary,
                                        golden.begin() + (i + 1) * vocabulary);
      const auto step = [&](ModelHarness& one) {
        return one.LogitsAfter({ids.begin(), ids.begin() + positions[i] + 1}, /*chunk=*/256);
      };
      const std::vector<float> logits = step(model);
      const float limit = noisy.Bound(logits, step);
      bound = std::max(bound, limit);
      for (size_t id = 0; id < vocabulary; ++id) {
        const float error = std::fabs(logits[id] - expected[id]);
        worst = std::max(worst, error);
        tightest = std::max(tightest, error / limit);
        ASSERT_LE(error, limit) << "position " << positions[i] << " id " << id;
      }
    }
  }
  RecordProperty("worst_error", std::to_string(worst));
  std::cout << GetParam().name << ": worst error " << worst << ", bound " << bound << ", at most "
            << tightest << " of its row's bound\n";
}

TEST_P(GoldenTest, GreedyTokensAreTheReferenceS) {
  ModelHarness model({.folder = GetParam().folder});
  ASSERT_TRUE(model.ok());
  NoisyModels noisy(GetParam().folder);
  for (const Json& prompt : golden_["prompts"]) {
    auto ids = prompt["ids"].get<std::vector<TokenId>>();
    const auto greedy = prompt["greedy"].get<std::vector<TokenId>>();
    const auto margins = prompt["margins"].get<std::vector<float>>();
    ASSERT_EQ(greedy.size(), margins.size());
    const auto table = ModelHarness::Table(0, 4);
    const std::vector<Piece> all = {{.tokens = ids, .blocks = table}};
    const Rows first = model.Step(all);
    // Of the prompt's last row; what a margin may lose at both ends, doubled for the rows behind
    // it.
    const float limit =
        4 * noisy.Bound(first[0], [&](ModelHarness& one) { return one.Step(all)[0]; });
    for (size_t step = 0; step < greedy.size(); ++step) {
      const TokenId token = model.result().samples[0].token;
      if (margins[step] > limit) {
        ASSERT_EQ(token, greedy[step]) << "step " << step << " margin " << margins[step];
      }
      // A near tie may fall either way: go on from the reference's choice.
      model.Step({{.tokens = {greedy[step]},
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
