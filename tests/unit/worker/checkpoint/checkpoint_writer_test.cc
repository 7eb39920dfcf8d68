// The load bench's checkpoints are what they claim to be, and the worker runs them.
#include "tests/bench/worker/checkpoint_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "tests/unit/worker/checkpoint/model_files.h"
#include "tests/unit/worker/model/model_harness.h"
#include "worker/checkpoint/checkpoint.h"
#include "worker/checkpoint/element.h"

namespace behemoth::worker {
namespace {

using bench::CheckpointShape;
using bench::WriteCheckpoint;
using bench::WriteOptions;
using testing::HasSubstr;

WriteOptions Small(const std::string& folder) {
  return {.folder = folder,
          .shape = {.layers = 3,
                    .hidden_size = 256,
                    .intermediate_size = 512,
                    .attention_heads = 4,
                    .kv_heads = 2,
                    .head_dim = 64,
                    .vocabulary_size = 512,
                    .context_tokens = 256},
          .shard_bytes = 400'000,
          .threads = 2};
}

absl::StatusOr<Checkpoint> OpenWritten(const WriteOptions& options) {
  const bench::WriteResult result = WriteCheckpoint(options);
  EXPECT_EQ(result.error, "");
  EXPECT_EQ(result.bytes, CheckpointBytes(options.shape));
  EXPECT_GT(result.shards, 2);
  auto folder = ReadModelFolder(options.folder);
  if (!folder.ok()) return folder.status();
  return Checkpoint::Open(options.folder, folder->quantization);
}

// spec: packed 60,901,294,080 + scales 1,903,165,440 + shapes 9,856 + embedding and head
// 1,610,612,736 + norms 4,349,952
TEST(CheckpointWriterTest, TheDefaultIsThe123B) {
  EXPECT_EQ(CheckpointBytes(CheckpointShape()), 64'419'432'064u);
}

TEST(CheckpointWriterTest, TheWorkerRunsIt) {
  const ModelFiles files;
  ASSERT_EQ(WriteCheckpoint(Small(files.folder())).error, "");
  ModelHarness model({.folder = files.folder()});
  ASSERT_TRUE(model.ok());
  const std::vector<float> logits = model.LogitsAfter(SomeTokens(100, 512, 1), 64);
  ASSERT_EQ(logits.size(), 512u);
  const double squares = std::inner_product(logits.begin(), logits.end(), logits.begin(), 0.0);
  const double deviation = std::sqrt(squares / 512);  // a NaN fails both
  EXPECT_GT(deviation, 0.2);
  EXPECT_LT(deviation, 5);
}

TEST(CheckpointWriterTest, WeightsAreFiniteAndOfZeroMean) {
  const ModelFiles files;
  auto checkpoint = OpenWritten(Small(files.folder()));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  auto linear = checkpoint->ReadLinear("model.layers.2.mlp.gate_proj", 512, 256);
  ASSERT_TRUE(linear.ok()) << linear.status();
  ASSERT_TRUE(Load(*linear).ok());
  const auto& int4 = std::get<Int4Weights>(linear->values);
  double sum = 0;
  for (const uint32_t word : int4.nibbles) {
    for (int i = 0; i < 8; ++i) sum += static_cast<double>((word >> (4 * i)) & 15) - 8;
  }
  // 131,072 draws of deviation 4.2: five times the deviation of their mean.
  EXPECT_LT(std::fabs(sum / (512 * 256)), 5 * 4.2 / std::sqrt(512 * 256));
  for (const float scale : FloatsOf(int4.scales)) {
    EXPECT_GT(scale, 0.5 / (4.2 * 16));
    EXPECT_LT(scale, 2 / (4.2 * 16));
  }
}

TEST(CheckpointWriterTest, TheSeedDecidesTheThreadsDoNot) {
  const auto print = [](uint64_t seed, int threads) {
    const ModelFiles files;
    WriteOptions options = Small(files.folder());
    options.seed = seed;
    options.threads = threads;
    auto checkpoint = OpenWritten(options);
    return checkpoint.ok() ? *checkpoint->Fingerprint("") : checkpoint.status().ToString();
  };
  const std::string first = print(1, 1);
  EXPECT_EQ(first.size(), 32u);
  EXPECT_EQ(print(1, 4), first);
  EXPECT_NE(print(2, 1), first);
}

TEST(CheckpointWriterTest, ReportsWhatItCannotWrite) {
  EXPECT_THAT(WriteCheckpoint(Small("/no/such/folder")).error, HasSubstr("/no/such/folder: "));
  const ModelFiles files;
  WriteOptions odd = Small(files.folder());
  odd.shape.group_size = 96;
  EXPECT_THAT(WriteCheckpoint(odd).error, HasSubstr("group-size"));
  WriteOptions huge = Small(files.folder());
  huge.shape = {.layers = 4000};  // 2.8 TB
  EXPECT_THAT(WriteCheckpoint(huge).error, HasSubstr("MiB free"));
}

}  // namespace
}  // namespace behemoth::worker
