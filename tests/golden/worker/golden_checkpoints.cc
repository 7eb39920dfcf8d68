#include "tests/golden/worker/golden_checkpoints.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <ostream>

namespace behemoth::worker {
namespace {

using Json = nlohmann::json;

std::string Source(const std::string& path) { return std::string(BEHEMOTH_SOURCE_DIR "/") + path; }

std::vector<float> ReadFloats(const std::string& path, int64_t offset, size_t count) {
  std::vector<float> floats(count);
  std::ifstream file(path, std::ios::binary);
  file.seekg(offset);
  file.read(reinterpret_cast<char*>(floats.data()), static_cast<std::streamsize>(4 * count));
  EXPECT_TRUE(file.good()) << path;
  return floats;
}

}  // namespace

std::vector<GoldenPrompt> GoldenCheckpoint::Read() const {
  std::ifstream file(json);
  EXPECT_TRUE(file.good()) << json;
  const Json golden = Json::parse(file, nullptr, /*allow_exceptions=*/false);
  EXPECT_TRUE(golden.is_object() && !golden["prompts"].empty()) << json;
  std::ifstream config_file(folder + "/config.json");
  const size_t vocabulary = Json::parse(config_file)["vocab_size"].get<size_t>();
  std::vector<GoldenPrompt> prompts;
  for (const Json& in : golden["prompts"]) {
    GoldenPrompt& out = prompts.emplace_back();
    in["ids"].get_to(out.ids);
    in["positions"].get_to(out.positions);
    in["greedy"].get_to(out.greedy);
    in["margins"].get_to(out.margins);
    EXPECT_EQ(out.greedy.size(), out.margins.size());
    const std::string bin =
        json.substr(0, json.rfind('/') + 1) + in["logits"]["file"].get<std::string>();
    const auto all =
        ReadFloats(bin, in["logits"]["offset"].get<int64_t>(), out.positions.size() * vocabulary);
    for (size_t at = 0; at < all.size(); at += vocabulary) {
      const auto row = all.begin() + static_cast<std::ptrdiff_t>(at);
      out.logits.emplace_back(row, row + static_cast<std::ptrdiff_t>(vocabulary));
    }
  }
  return prompts;
}

void PrintTo(const GoldenCheckpoint& checkpoint, std::ostream* out) { *out << checkpoint.name; }

std::vector<GoldenCheckpoint> GoldenCheckpoints() {
  std::vector<GoldenCheckpoint> all = {
      {"tiny", Source("tests/models/tiny"), Source("tests/golden/data/tiny_logits.json")}};
  for (const char* name :
       {"sym_g128", "asym_g128", "asym_g64_actorder_static", "sym_g128_mixed", "sym_g32_sharded",
        "sym_g64_tied_head128", "sym_g128_head128", "sym_channel", "sym_g32_actorder_group_head128",
        "asym_g64_actorder_group_bytes", "gptq_v1_sym_g128", "gptq_v1_sym_g64_desc_act_f16",
        "gptq_v1_asym_g32", "gptq_v2_asym_g32", "gptq_v2_asym_g128_desc_act", "plain_bf16",
        "plain_f16_sharded"}) {
    const std::string folder = Source(std::string("tests/models/variants/") + name);
    all.push_back({name, folder, folder + "/golden.json"});
  }
  return all;
}

NoisyModels::NoisyModels(const std::string& folder, Arithmetic arithmetic, int32_t ranks) {
  for (uint32_t seed = 1; seed <= kNoisyRuns; ++seed) {
    devices_.push_back(OpenRoundingCpu(arithmetic, seed, ranks));
    models_.push_back(std::make_unique<ModelHarness>(
        HarnessOptions{.folder = folder, .device = devices_.back().get(), .threads = 1}));
  }
}

float NoisyModels::Bound(const std::vector<float>& exact,
                         const std::function<std::vector<float>(ModelHarness&)>& step) {
  double squares = 0;
  for (auto& model : models_) {
    const std::vector<float> noisy = step(*model);
    for (size_t id = 0; id < exact.size(); ++id) {
      squares += std::pow(static_cast<double>(noisy[id]) - exact[id], 2);
    }
  }
  const double count = static_cast<double>(exact.size()) * kNoisyRuns;
  return kSafety * static_cast<float>(std::sqrt(squares / count));
}

namespace {

int32_t RanksOf(const HarnessOptions& options) {
  return std::max<int32_t>(1, static_cast<int32_t>(options.ranks.size()));
}

}  // namespace

void ExpectLogitsWithinTheBound(const GoldenCheckpoint& checkpoint, HarnessOptions options,
                                Arithmetic arithmetic) {
  options.folder = checkpoint.folder;
  ModelHarness model(options);
  ModelHarness without_noise({.folder = checkpoint.folder});
  ASSERT_TRUE(model.ok() && without_noise.ok());
  NoisyModels noisy(checkpoint.folder, arithmetic, RanksOf(options));
  float worst = 0, bound = 0, tightest = 0;
  for (const GoldenPrompt& prompt : checkpoint.Read()) {
    for (size_t i = 0; i < prompt.positions.size(); ++i) {
      const auto end = prompt.ids.begin() + prompt.positions[i] + 1;
      const auto step = [&](ModelHarness& one) {
        return one.LogitsAfter({prompt.ids.begin(), end}, /*chunk=*/256);
      };
      const std::vector<float> logits = step(model);
      ASSERT_EQ(logits.size(), prompt.logits[i].size());
      const float limit = noisy.Bound(step(without_noise), step);
      bound = std::max(bound, limit);
      for (size_t id = 0; id < logits.size(); ++id) {
        const float error = std::fabs(logits[id] - prompt.logits[i][id]);
        worst = std::max(worst, error);
        tightest = std::max(tightest, error / limit);
        ASSERT_LE(error, limit) << "position " << prompt.positions[i] << " id " << id;
      }
    }
  }
  std::cout << checkpoint.name << ": worst error " << worst << ", bound " << bound << ", at most "
            << tightest << " of its row's bound\n";
}

void ExpectGreedyTokens(const GoldenCheckpoint& checkpoint, HarnessOptions options,
                        Arithmetic arithmetic) {
  options.folder = checkpoint.folder;
  ModelHarness model(options);
  ASSERT_TRUE(model.ok());
  NoisyModels noisy(checkpoint.folder, arithmetic, RanksOf(options));
  for (const GoldenPrompt& prompt : checkpoint.Read()) {
    const auto table = ModelHarness::Table(0, 4);
    const std::vector<Piece> all = {{.tokens = prompt.ids, .blocks = table}};
    const auto first = model.Step(all);
    // Of the prompt's last row; what a margin may lose at both ends, doubled for the rows behind
    // it.
    const float limit =
        4 * noisy.Bound(first[0], [&](ModelHarness& one) { return one.Step(all)[0]; });
    for (size_t step = 0; step < prompt.greedy.size(); ++step) {
      const TokenId token = model.result().samples[0].token;
      if (prompt.margins[step] > limit) {
        ASSERT_EQ(token, prompt.greedy[step])
            << "step " << step << " margin " << prompt.margins[step];
      }
      // A near tie may fall either way: go on from the reference's choice.
      model.Step({{.tokens = {prompt.greedy[step]},
                   .position = static_cast<int32_t>(prompt.ids.size() + step),
                   .blocks = table}});
    }
  }
}

}  // namespace behemoth::worker
