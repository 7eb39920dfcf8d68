// Several GPUs are one model: logits and greedy tokens of the reference within the bound, which
// knows of the ranks' roundings, and the same bits in every run and in every batch.
#include <cstring>
#include <map>
#include <set>

#include "tests/golden/worker/golden_checkpoints.h"
#include "worker/ranks.h"

namespace behemoth::worker {
namespace {

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), 4 * a.size()) == 0;
}

// Two ranks that add up in this way. Made once and never destroyed: NCCL ends with the process.
const absl::StatusOr<Ranks>& TwoGpus(const std::string& all_reduce) {
  static auto& made = *new std::map<std::string, absl::StatusOr<Ranks>>();
  const auto found = made.find(all_reduce);
  if (found != made.end()) return found->second;
  return made[all_reduce] = OpenRanks({.backend = "cuda", .size = 2, .all_reduce = all_reduce});
}

struct Case {
  GoldenCheckpoint checkpoint;
  std::string all_reduce;
};
void PrintTo(const Case& one, std::ostream* out) { *out << one.checkpoint.name; }

class CudaRanksTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (!OpenCuda(1).ok()) GTEST_SKIP() << "no CUDA device on this machine for a second rank";
    const auto& ranks = TwoGpus(GetParam().all_reduce);
    ASSERT_TRUE(ranks.ok()) << ranks.status();
    const bool own = ranks->groups.front()->peers() != nullptr;
    if (GetParam().all_reduce == "auto" && !own)
      GTEST_SKIP() << "these GPUs do not reach each other";
  }
  HarnessOptions Options() const {
    return {.folder = GetParam().checkpoint.folder,
            .ranks = TwoGpus(GetParam().all_reduce)->places()};
  }
};

TEST_P(CudaRanksTest, LogitsAreWithinTheBoundOfTheReference) {
  ExpectLogitsWithinTheBound(GetParam().checkpoint, Options(), Arithmetic::kBf16);
}

TEST_P(CudaRanksTest, GreedyTokensAreTheReferenceSButForNearTies) {
  ExpectGreedyTokens(GetParam().checkpoint, Options(), Arithmetic::kBf16);
}

// Decodes alone, in batches (each width another graph), again, and in another run.
TEST_P(CudaRanksTest, ADecodedRowsBitsAreItsOwn) {
  constexpr int32_t kSlots = 20;
  HarnessOptions options = Options();
  options.max_sequences = kSlots;
  options.blocks = kSlots;
  std::vector<std::vector<float>> first_run;
  for (int run = 0; run < 2; ++run) {
    ModelHarness model(options);
    ASSERT_TRUE(model.ok());
    std::vector<Piece> decodes;
    std::vector<std::vector<float>> alone;
    for (int32_t slot = 0; slot < kSlots; ++slot) {
      const auto prompt = SomeTokens(3 + slot, model.vocabulary_size(), 40 + slot);
      const auto table = ModelHarness::Table(slot, 1);
      model.Step({{.slot = slot, .tokens = prompt, .blocks = table, .sample = false}});
      decodes.push_back(
          {.slot = slot, .tokens = {5}, .position = 3 + slot, .blocks = table, .output_count = 1});
      alone.push_back(model.Step({decodes.back()})[0]);
    }
    for (const size_t rows : {2, 3, 8, 17, 20}) {
      const auto logits = model.Step({decodes.begin(), decodes.begin() + rows});
      ASSERT_EQ(logits.size(), rows);
      for (size_t row = 0; row < rows; ++row) {
        EXPECT_TRUE(SameBits(logits[row], alone[row])) << "row " << row << " of " << rows;
      }
    }
    if (run == 0) first_run = alone;
    for (size_t row = 0; row < alone.size(); ++row) {
      EXPECT_TRUE(SameBits(alone[row], first_run[row])) << "row " << row << " of another run";
    }
  }
}

std::vector<Case> WithTwoKvHeads() {
  const std::set<std::string> names = {
      "tiny", "sym_g128", "asym_g128", "sym_g32_sharded", "gptq_v1_sym_g128", "plain_bf16"};
  std::vector<Case> all;
  for (const GoldenCheckpoint& one : GoldenCheckpoints()) {
    if (!names.contains(one.name)) continue;
    for (const char* all_reduce : {"auto", "nccl"}) all.push_back({one, all_reduce});
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, CudaRanksTest, testing::ValuesIn(WithTwoKvHeads()),
                         [](const auto& info) {
                           return info.param.checkpoint.name + "_" + info.param.all_reduce;
                         });

}  // namespace
}  // namespace behemoth::worker
