// A part of a projection holds the weights that the whole has there, whatever its format and
// wherever its values still are.
#include "worker/checkpoint/slice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "tests/unit/worker/checkpoint/model_files.h"
#include "worker/checkpoint/checkpoint.h"
#include "worker/runner/model_folder.h"

namespace behemoth::worker {
namespace {

// weight[o, model input i], by the definition in linear_weights.h.
std::vector<float> Values(LinearWeights weights) {
  EXPECT_TRUE(Load(weights).ok());
  const auto in = static_cast<size_t>(weights.in), out = static_cast<size_t>(weights.out);
  if (const auto* dense = std::get_if<DenseMatrix>(&weights.values)) {
    EXPECT_EQ(static_cast<size_t>(dense->rows) * dense->cols, out * in);
    return FloatsOf(*dense);
  }
  const auto& int4 = std::get<Int4Weights>(weights.values);
  const size_t groups = in / static_cast<size_t>(int4.group_size);
  std::vector<float> values(out * in);
  for (size_t o = 0; o < out; ++o) {
    for (size_t c = 0; c < in; ++c) {
      const int nibble = (int4.nibbles[(o * in + c) / 8] >> (4 * (c % 8))) & 15;
      const size_t group = o * groups + c / static_cast<size_t>(int4.group_size);
      const int zero = int4.zeros.empty() ? 8 : int4.zeros[group];
      const size_t input = int4.permutation.empty() ? c : static_cast<size_t>(int4.permutation[c]);
      values[o * in + input] = static_cast<float>(nibble - zero) * int4.scales[group];
    }
  }
  return values;
}

// Every part of `ranks` against the whole.
void ExpectParts(const LinearWeights& whole, int32_t ranks) {
  const std::vector<float> all = Values(whole);
  const int32_t rows = whole.out / ranks, cols = whole.in / ranks;
  for (int32_t rank = 0; rank < ranks; ++rank) {
    const LinearWeights outputs = OutputsOf(whole, {rank * rows, rows});
    EXPECT_EQ(outputs.out, rows);
    EXPECT_EQ(outputs.in, whole.in);
    const auto begin = all.begin() + int64_t{rank} * rows * whole.in;
    EXPECT_EQ(Values(outputs), std::vector<float>(begin, begin + int64_t{rows} * whole.in));
    const auto inputs = InputsOf(whole, {rank * cols, cols});
    ASSERT_TRUE(inputs.ok()) << inputs.status();
    std::vector<float> columns;
    for (int32_t o = 0; o < whole.out; ++o) {
      const auto row = all.begin() + int64_t{o} * whole.in + rank * cols;
      columns.insert(columns.end(), row, row + cols);
    }
    EXPECT_EQ(inputs->in, cols);
    EXPECT_EQ(Values(*inputs), columns) << "rank " << rank << " of " << ranks;
  }
}

LinearWeights Random(int32_t out, int32_t in, int32_t group, bool zeros) {
  std::mt19937 random(1);
  Int4Weights int4{.group_size = group};
  std::vector<uint32_t> nibbles(static_cast<size_t>(out) * in / 8);
  for (uint32_t& word : nibbles) word = random();
  std::vector<float> scales(static_cast<size_t>(out) * in / group);
  for (float& scale : scales) scale = static_cast<float>(random() % 1000 + 1);
  if (zeros) {
    for (size_t i = 0; i < scales.size(); ++i) {
      int4.zeros.push_back(static_cast<uint8_t>(random() % 17));
    }
  }
  int4.nibbles = std::move(nibbles);
  int4.scales = MatrixOf(out, in / group, std::move(scales));
  return {out, in, std::move(int4)};
}

TEST(SliceTest, PartsOfWholeGroupsAndOfOneGroup) {
  for (const bool zeros : {false, true}) {
    ExpectParts(Random(16, 256, 32, zeros), 4);
    ExpectParts(Random(8, 256, 64, zeros), 4);
    ExpectParts(Random(8, 256, 128, zeros), 8);  // four ranks' parts lie in one group
    ExpectParts(Random(8, 256, 256, zeros), 2);  // one group
  }
}

// Half of the inputs in an order of their own each: no rank needs another's.
TEST(SliceTest, AnOrderThatStaysWithinThePartsIsCutToo) {
  LinearWeights whole = Random(4, 64, 16, false);
  auto& order = std::get<Int4Weights>(whole.values).permutation;
  for (int32_t c = 0; c < 64; ++c) order.push_back(c / 32 * 32 + (c % 32 * 5 + 3) % 32);
  ExpectParts(whole, 2);
  std::swap(order[3], order[40]);
  const auto crossing = InputsOf(whole, {0, 32});
  EXPECT_TRUE(absl::IsUnimplemented(crossing.status()));
  EXPECT_THAT(std::string(crossing.status().message()), testing::HasSubstr("act-order"));
}

TEST(SliceTest, GroupsThatNoCutFitsAreRefusedWithTheNumbers) {
  const auto cut = InputsOf(Random(4, 192, 64, false), {0, 96});
  EXPECT_TRUE(absl::IsUnimplemented(cut.status()));
  EXPECT_THAT(std::string(cut.status().message()),
              testing::HasSubstr("192 inputs in groups of 64 cannot be cut at 96"));
  EXPECT_TRUE(CanCutInputs(-1, 64));
  EXPECT_FALSE(CanCutInputs(128, 100));
}

// Values that are still in their files, of every layout; what is read of them is the part alone.
TEST(SliceTest, PartsOfFilesAreThoseOfMemory) {
  for (const char* variant : {"sym_g128", "asym_g128", "gptq_v2_asym_g32", "plain_bf16"}) {
    const std::string folder = std::string(BEHEMOTH_SOURCE_DIR "/tests/models/variants/") + variant;
    auto model = ReadModelFolder(folder);
    ASSERT_TRUE(model.ok()) << model.status();
    auto files = Checkpoint::Open(folder, model->quantization);
    ASSERT_TRUE(files.ok()) << files.status();
    const auto down = files->ReadLinear("model.layers.1.mlp.down_proj", model->config.hidden_size,
                                        model->config.intermediate_size);
    ASSERT_TRUE(down.ok()) << down.status();
    ExpectParts(*down, 2);
  }
}

TEST(SliceTest, PartsOfASeedAreSeedsOfTheirOwn) {
  LinearWeights whole{64, 128, Int4Weights{.group_size = 32, .seed = 5}};
  const LinearWeights first = OutputsOf(whole, {0, 32}), second = OutputsOf(whole, {32, 32});
  EXPECT_EQ(std::get<Int4Weights>(first.values).seed, 5u);
  EXPECT_NE(std::get<Int4Weights>(second.values).seed, 5u);
  EXPECT_NE(Values(first), Values(second));
  EXPECT_EQ(Values(*InputsOf(whole, {64, 64})).size(), 64u * 64);
}

}  // namespace
}  // namespace behemoth::worker
