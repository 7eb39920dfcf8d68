#include "worker/checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "tests/unit/worker/checkpoint/model_files.h"
#include "worker/checkpoint/parallel_rows.h"
#include "worker/checkpoint/random_weights.h"

namespace behemoth::worker {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;

QuantizationConfig Scheme(const Json& section) {
  auto config = QuantizationConfig::Parse({{"quantization_config", section}});
  EXPECT_TRUE(config.ok()) << config.status();
  return config.ok() ? *config : QuantizationConfig();
}

Json PackQuantized() {
  return {{"quant_method", "compressed-tensors"},
          {"config_groups",
           {{"group_0",
             {{"targets", {"Linear"}},
              {"weights", {{"num_bits", 4}, {"group_size", 8}, {"strategy", "group"}}}}}}}};
}

Json Gptq(bool desc_act) {
  return {{"quant_method", "gptq"}, {"bits", 4}, {"group_size", 8}, {"desc_act", desc_act}};
}

// One linear "m" of 8 outputs and 16 inputs, two groups.
std::vector<FileTensor> PackedLinear() {
  return {{"m.weight_packed", "I32", {8, 2}, BytesOf(std::vector<uint32_t>(16, 0x76543210))},
          {"m.weight_scale", "F32", {8, 2}, BytesOf(std::vector<float>(16, 0.5f))},
          {"m.weight_shape", "I64", {2}, BytesOf<int64_t>({8, 16})}};
}

std::vector<FileTensor> GptqLinear() {
  std::vector<int32_t> g_idx(16);
  for (int32_t c = 0; c < 16; ++c) g_idx[c] = c % 2;
  return {{"m.qweight", "I32", {2, 8}, BytesOf(std::vector<uint32_t>(16, 0x76543210))},
          {"m.qzeros", "I32", {2, 1}, BytesOf(std::vector<uint32_t>(2, 0x77777777))},
          {"m.scales", "F32", {2, 8}, BytesOf(std::vector<float>(16, 0.5f))},
          {"m.g_idx", "I32", {16}, BytesOf(g_idx)}};
}

// As the checkpoint hands it out; it outlives the folder.
absl::StatusOr<LinearWeights> ReadLinear(const std::vector<FileTensor>& tensors,
                                         const Json& scheme) {
  const ModelFiles files;
  files.WriteTensors("model.safetensors", tensors);
  auto checkpoint = Checkpoint::Open(files.folder(), Scheme(scheme));
  if (!checkpoint.ok()) return checkpoint.status();
  return checkpoint->ReadLinear("m", 8, 16);
}

absl::StatusOr<LinearWeights> ReadBack(const std::vector<FileTensor>& tensors, const Json& scheme) {
  absl::StatusOr<LinearWeights> linear = ReadLinear(tensors, scheme);
  if (!linear.ok()) return linear;
  const absl::Status loaded = Load(*linear);
  return loaded.ok() ? linear : loaded;
}

std::vector<FileTensor> With(std::vector<FileTensor> tensors, const FileTensor& changed) {
  std::erase_if(tensors, [&](const FileTensor& t) { return t.name == changed.name; });
  if (!changed.dtype.empty()) tensors.push_back(changed);
  return tensors;
}
FileTensor Without(const std::string& name) { return {name, "", {}, ""}; }

TEST(CheckpointTest, ReadsNibblesAlongTheInputs) {
  const auto linear = ReadBack(PackedLinear(), PackQuantized());
  ASSERT_TRUE(linear.ok()) << linear.status();
  const auto& weights = std::get<Int4Weights>(linear->values);
  EXPECT_EQ(weights.nibbles, std::vector<uint32_t>(16, 0x76543210));
  EXPECT_TRUE(weights.zeros.empty());
  EXPECT_TRUE(weights.permutation.empty());
  EXPECT_EQ(weights.product, ElementType::kFloat32);
}

// 62 GB are not read twice: what needs no change stays in its file until somebody wants it.
TEST(CheckpointTest, OnlyWhatIsTransformedIsRead) {
  const auto nibbles_read = [](const std::vector<FileTensor>& tensors, const Json& scheme) {
    const auto linear = ReadLinear(tensors, scheme);
    EXPECT_TRUE(linear.ok()) << linear.status();
    return std::get<Int4Weights>(linear->values).nibbles.bytes().in_memory();
  };
  EXPECT_FALSE(nibbles_read(PackedLinear(), PackQuantized()));
  EXPECT_TRUE(nibbles_read(GptqLinear(), Gptq(false)));
  FileTensor g_idx = GptqLinear().back();
  g_idx.name = "m.weight_g_idx";
  EXPECT_TRUE(nibbles_read(With(PackedLinear(), g_idx), PackQuantized()));
  const auto plain =
      ReadLinear({{"m.weight", "F32", {8, 16}, BytesOf(std::vector<float>(128, 1.0f))}}, {});
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_FALSE(std::get<DenseMatrix>(plain->values).bytes.bytes().in_memory());
}

TEST(CheckpointTest, ScalesKeepTheTypeTheyAreStoredIn) {
  const std::vector<uint16_t> halves(16, 0x3800);  // 0.5 as f16; 3.05e-5 as bf16
  for (const auto& [dtype, type] :
       {std::pair("BF16", ElementType::kBfloat16), std::pair("F16", ElementType::kFloat16)}) {
    const auto linear = ReadLinear(
        With(PackedLinear(), {"m.weight_scale", dtype, {8, 2}, BytesOf(halves)}), PackQuantized());
    ASSERT_TRUE(linear.ok()) << linear.status();
    const DenseMatrix& scales = std::get<Int4Weights>(linear->values).scales;
    EXPECT_EQ(scales.type, type);
    EXPECT_EQ(FloatsOf(scales), std::vector<float>(16, dtype[0] == 'F' ? 0.5f : 0x1p-15f));
    const DenseMatrix bf16 = AsBfloat16(scales);
    EXPECT_EQ(bf16.bytes.data() == scales.bytes.data(), type == ElementType::kBfloat16);
    EXPECT_EQ(FloatsOf(bf16), FloatsOf(scales));  // both are powers of two
  }
}

TEST(CheckpointTest, GIdxBecomesAPermutationThatMakesGroupsConsecutive) {
  const auto linear = ReadBack(GptqLinear(), Gptq(true));
  ASSERT_TRUE(linear.ok()) << linear.status();
  const auto& weights = std::get<Int4Weights>(linear->values);
  EXPECT_EQ(weights.permutation,
            (std::vector<int32_t>{0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15}));
  EXPECT_EQ(weights.nibbles[0], 0x64206420u);  // the even columns, then the odd ones
  EXPECT_EQ(weights.nibbles[1], 0x75317531u);
  EXPECT_TRUE(weights.zeros.empty());  // 7 + 1 everywhere is symmetric
}

TEST(ParallelRowsTest, EachRowOnceWhateverTheThreads) {
  for (const int32_t rows : {0, 1, 7, 1000}) {
    for (const uint64_t bytes : {uint64_t{0}, uint64_t{3} << 20, uint64_t{1} << 40}) {
      std::vector<int> seen(static_cast<size_t>(rows), 0);
      ParallelRows(rows, bytes, [&](int32_t begin, int32_t end) {
        for (int32_t row = begin; row < end; ++row) ++seen[static_cast<size_t>(row)];
      });
      EXPECT_EQ(seen, std::vector<int>(static_cast<size_t>(rows), 1)) << rows << ", " << bytes;
    }
  }
}

// Large enough for several threads, in shapes that their shares and the cache squares do not tile.
TEST(CheckpointTest, ABigGptqLinearIsTransposedAndPermutedWhole) {
  constexpr int32_t kOut = 2056, kIn = 4 * 1056, kGroup = 8;
  const auto stored = [](int64_t o, int64_t c) {
    return static_cast<uint32_t>(o * 31 + c * 7) % 13;
  };
  std::vector<uint32_t> qweight(size_t{kIn} / 8 * kOut);
  for (int64_t c = 0; c < kIn; ++c) {
    for (int64_t o = 0; o < kOut; ++o) qweight[c / 8 * kOut + o] |= stored(o, c) << (4 * (c % 8));
  }
  constexpr int32_t kGroups = kIn / kGroup;
  std::vector<int32_t> g_idx(kIn);
  for (int32_t c = 0; c < kIn; ++c) g_idx[c] = c % kGroups;
  std::vector<float> scales(size_t{kGroups} * kOut);
  for (size_t i = 0; i < scales.size(); ++i) scales[i] = static_cast<float>(i % 1021);
  const ModelFiles files;
  files.WriteTensors("model.safetensors",
                     {{"m.qweight", "I32", {kIn / 8, kOut}, BytesOf(qweight)},
                      {"m.qzeros",
                       "I32",
                       {kGroups, kOut / 8},
                       BytesOf(std::vector<uint32_t>(size_t{kGroups} * kOut / 8, 0x77777777))},
                      {"m.scales", "F32", {kGroups, kOut}, BytesOf(scales)},
                      {"m.g_idx", "I32", {kIn}, BytesOf(g_idx)}});
  auto checkpoint = Checkpoint::Open(files.folder(), Scheme(Gptq(true)));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const auto linear = checkpoint->ReadLinear("m", kOut, kIn);
  ASSERT_TRUE(linear.ok()) << linear.status();
  const auto& int4 = std::get<Int4Weights>(linear->values);
  int64_t wrong = 0;
  for (int64_t o = 0; o < kOut; ++o) {
    for (int64_t c = 0; c < kIn; ++c) {
      const uint32_t nibble = int4.nibbles[o * (kIn / 8) + c / 8] >> (4 * (c % 8)) & 15;
      wrong += nibble != stored(o, int4.permutation[c]);
    }
    for (int64_t g = 0; g < kGroups; ++g) {
      wrong += int4.scales[o * kGroups + g] != scales[g * kOut + o];
    }
  }
  EXPECT_EQ(wrong, 0);
}

// Version 1 stores zero - 1 in each nibble, and a zero of 0 borrows from the next: undone exactly.
TEST(CheckpointTest, GptqZeroPointsSurviveTheBorrow) {
  const uint32_t stored = 0x87654320u - 0x11111111u;  // zeros 0, 2, 3, 4, 5, 6, 7, 8
  const auto linear =
      ReadBack(With(GptqLinear(), {"m.qzeros", "I32", {2, 1}, BytesOf<uint32_t>({stored, stored})}),
               Gptq(false));
  ASSERT_TRUE(linear.ok()) << linear.status();
  const auto& zeros = std::get<Int4Weights>(linear->values).zeros;
  ASSERT_EQ(zeros.size(), 16u);
  const std::vector<uint8_t> expected = {0, 2, 3, 4, 5, 6, 7, 8};
  for (size_t o = 0; o < 8; ++o) EXPECT_EQ(zeros[2 * o], expected[o]) << o;
}

struct BadLinear {
  const char* name;
  std::vector<FileTensor> tensors;
  Json scheme;
  const char* says;
};

class BadLinearTest : public testing::TestWithParam<BadLinear> {};

TEST_P(BadLinearTest, IsRefusedWithTheTensorNamed) {
  const auto linear = ReadBack(GetParam().tensors, GetParam().scheme);
  ASSERT_FALSE(linear.ok());
  EXPECT_THAT(std::string(linear.status().message()), HasSubstr(GetParam().says));
}

const float kNan = std::numeric_limits<float>::quiet_NaN();
const std::vector<float> kOnes(16, 1.0f), kWithNan = {kNan, 1, 1, 1, 1, 1, 1, 1,
                                                      1,    1, 1, 1, 1, 1, 1, 1};

INSTANTIATE_TEST_SUITE_P(
    All, BadLinearTest,
    testing::Values(
        BadLinear{"Missing", With(PackedLinear(), Without("m.weight_packed")), PackQuantized(),
                  "m.weight_packed: is missing"},
        BadLinear{"WrongDtype",
                  With(PackedLinear(), {"m.weight_packed", "F32", {8, 2}, BytesOf(kOnes)}),
                  PackQuantized(), "m.weight_packed: is F32, must be I32"},
        BadLinear{"WrongShape",
                  With(PackedLinear(), {"m.weight_scale", "F32", {2, 8}, BytesOf(kOnes)}),
                  PackQuantized(), "m.weight_scale: is [2, 8], must be [8, 2]"},
        BadLinear{"StoredShapeDiffers",
                  With(PackedLinear(), {"m.weight_shape", "I64", {2}, BytesOf<int64_t>({8, 15})}),
                  PackQuantized(), "m.weight_shape: says [8, 15]"},
        BadLinear{"ScaleNotFinite",
                  With(PackedLinear(), {"m.weight_scale", "F32", {8, 2}, BytesOf(kWithNan)}),
                  PackQuantized(), "m.weight_scale: element 0 is not finite"},
        BadLinear{"UnknownPart", With(PackedLinear(), {"m.input_global_scale", "F32", {}, "abcd"}),
                  PackQuantized(), "m.input_global_scale: is not part"},
        BadLinear{"PlainWhereQuantized",
                  {{"m.weight", "F32", {8, 16}, BytesOf(std::vector<float>(128, 1.0f))}},
                  PackQuantized(),
                  "m.weight"},
        BadLinear{"ZeroPointOutOfRange",
                  With(PackedLinear(),
                       {"m.weight_zero_point", "I8", {8, 2}, std::string(15, '\0') + "\x08"}),
                  PackQuantized(), "m.weight_zero_point: 8 is not an int4"},
        BadLinear{
            "GroupIndexWild",
            With(GptqLinear(), {"m.g_idx", "I32", {16}, BytesOf(std::vector<int32_t>(16, 2))}),
            Gptq(true), "m.g_idx: column 0 names group 2 of 2"},
        BadLinear{
            "GroupIndexUneven",
            With(GptqLinear(), {"m.g_idx", "I32", {16}, BytesOf(std::vector<int32_t>(16, 0))}),
            Gptq(true), "m.g_idx: group 0 has 16 columns"},
        BadLinear{"GroupIndexMissing", With(GptqLinear(), Without("m.g_idx")), Gptq(true),
                  "m.g_idx: is missing"},
        BadLinear{"Bias",
                  With(GptqLinear(), {"m.bias", "F32", {8}, BytesOf(std::vector<float>(8, 0.25f))}),
                  Gptq(false), "m.bias: is not zero"}),
    [](const auto& info) { return info.param.name; });

TEST(CheckpointTest, ABiasOfZerosIsNoBias) {
  EXPECT_TRUE(
      ReadBack(With(GptqLinear(), {"m.bias", "F32", {8}, std::string(32, '\0')}), Gptq(false))
          .ok());
}

// ---- Several files
// -------------------------------------------------------------------------------
absl::Status OpenWithIndex(const ModelFiles& files, const Json& weight_map) {
  files.Write("model.safetensors.index.json", Json({{"weight_map", weight_map}}).dump());
  return Checkpoint::Open(files.folder(), QuantizationConfig()).status();
}

TEST(CheckpointTest, AnIndexMustTellTheTruth) {
  const ModelFiles files;
  const FileTensor a = {"a", "U8", {1}, "1"}, b = {"b", "U8", {1}, "2"};
  files.WriteTensors("1.safetensors", {a});
  files.WriteTensors("2.safetensors", {b});
  EXPECT_TRUE(OpenWithIndex(files, {{"a", "1.safetensors"}, {"b", "2.safetensors"}}).ok());
  const auto refuses = [&](const Json& map, const std::string& says) {
    const absl::Status status = OpenWithIndex(files, map);
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(std::string(status.message()), HasSubstr(says));
  };
  refuses({{"a", "2.safetensors"}, {"b", "2.safetensors"}}, "a: is in the index but not in");
  refuses({{"a", "1.safetensors"}, {"c", "2.safetensors"}}, "c: is in the index but not in");
  refuses({{"a", "3.safetensors"}}, "3.safetensors");
  refuses({{"a", "../1.safetensors"}}, "must name a .safetensors file of the folder");
  refuses({{"a", "/etc/passwd"}}, "must name a .safetensors file of the folder");
  refuses({{"a", 1}}, "must name a .safetensors file of the folder");
  refuses(Json::object(), "names 0 files");
  refuses(Json::array(), "weight_map");
  files.WriteTensors("2.safetensors", {a, b});
  refuses({{"a", "1.safetensors"}, {"b", "2.safetensors"}}, "a: is also in 1.safetensors");
}

TEST(CheckpointTest, AFolderWithoutWeightsSaysSo) {
  const ModelFiles files;
  EXPECT_TRUE(absl::IsNotFound(Checkpoint::Open(files.folder(), {}).status()));
  files.Write("model.safetensors.index.json", "{");
  EXPECT_TRUE(absl::IsInvalidArgument(Checkpoint::Open(files.folder(), {}).status()));
}

TEST(CheckpointTest, TheFingerprintSeesConfigNamesAndBytes) {
  const auto print = [](const std::string& name, const std::string& bytes,
                        const std::string& config) {
    const ModelFiles files;
    files.WriteTensors("model.safetensors",
                       {{name, "U8", {static_cast<int64_t>(bytes.size())}, bytes}});
    return *Checkpoint::Open(files.folder(), {})->Fingerprint(config);
  };
  const std::string first = print("a", "12345", "{}");
  EXPECT_EQ(first.size(), 32u);
  EXPECT_EQ(print("a", "12345", "{}"), first);
  EXPECT_NE(print("b", "12345", "{}"), first);
  EXPECT_NE(print("a", "12346", "{}"), first);
  EXPECT_NE(print("a", "12345", "{ }"), first);
}

// ---- Scales of keys and values
// ------------------------------------------------------------------
Json KvScheme() {
  Json scheme = PackQuantized();
  scheme["kv_cache_scheme"] = {
      {"num_bits", 8}, {"type", "float"}, {"strategy", "tensor"}, {"dynamic", false}};
  return scheme;
}

absl::StatusOr<std::vector<float>> KvScale(const Json& scheme, const FileTensor& tensor) {
  const ModelFiles files;
  files.WriteTensors("model.safetensors", {tensor});
  auto checkpoint = Checkpoint::Open(files.folder(), Scheme(scheme));
  if (!checkpoint.ok()) return checkpoint.status();
  return checkpoint->ReadKvScale("a.k_scale", 2);
}

TEST(KvScaleTest, OneForAllHeadsOrOneForEach) {
  const std::vector<float> one = {0.5f}, two = {0.5f, 0.25f};
  EXPECT_THAT(*KvScale(KvScheme(), {"a.k_scale", "F32", {1}, BytesOf(one)}),
              testing::ElementsAre(0.5f, 0.5f));
  EXPECT_THAT(*KvScale(KvScheme(), {"a.k_scale", "BF16", {}, BytesOf<uint16_t>({0x3e80})}),
              testing::ElementsAre(0.25f, 0.25f));
  EXPECT_THAT(*KvScale(KvScheme(), {"a.k_scale", "F32", {2, 1, 1}, BytesOf(two)}),
              testing::ElementsAre(0.5f, 0.25f));
  EXPECT_THAT(*KvScale(PackQuantized(), {"a.k_scale", "F32", {1}, BytesOf(one)}),
              testing::IsEmpty());
}

TEST(KvScaleTest, WhatCannotBeServedIsNamed) {
  const std::vector<float> three(3, 1.0f);
  for (const FileTensor& bad : {FileTensor{"a.k_scale", "F32", {3}, BytesOf(three)},
                                FileTensor{"a.k_scale", "F32", {1}, BytesOf<float>({0.0f})},
                                FileTensor{"a.k_scale", "F32", {1}, BytesOf<float>({NAN})},
                                FileTensor{"a.v_scale", "F32", {1}, BytesOf<float>({1.0f})}}) {
    EXPECT_THAT(KvScale(KvScheme(), bad).status().message(), HasSubstr("a.k_scale"));
  }
}

// ---- Random weights
// ------------------------------------------------------------------------------
TEST(RandomWeightsTest, DependOnSeedAndNameAlone) {
  RandomWeights one(1, Scheme(PackQuantized())), again(1, Scheme(PackQuantized())),
      other(2, Scheme(PackQuantized()));
  const auto nibbles = [](RandomWeights& source, const std::string& module) {
    LinearWeights linear = *source.ReadLinear(module, 8, 16);
    EXPECT_TRUE(Load(linear).ok());
    return std::get<Int4Weights>(linear.values).nibbles;
  };
  EXPECT_TRUE(again.ReadDense("x", 3, 5).ok());  // what was read before does not matter
  EXPECT_EQ(nibbles(one, "m"), nibbles(again, "m"));
  EXPECT_NE(nibbles(one, "m"), nibbles(other, "m"));
  EXPECT_NE(nibbles(one, "m"), nibbles(one, "n"));
  EXPECT_FALSE(one.ReadLinear("m", 8, 12).ok());
}

}  // namespace
}  // namespace behemoth::worker
