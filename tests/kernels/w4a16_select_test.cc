#include <gtest/gtest.h>

#include "kernels/reference/w4a16_reference.h"
#include "kernels/w4a16_gemm/decode_gemm.h"
#include "kernels/w4a16_gemm/prefill_gemm.h"
#include "kernels/w4a16_gemm/random_source.h"

namespace behemoth::kernels {
namespace {

constexpr DeviceLimits kH100 = {.compute_capability = 90,
                                .sm_count = 132,
                                .shared_bytes_per_block = 232'448,
                                .shared_bytes_per_sm = 233'472,
                                .l2_bytes = 50 << 20,
                                .memory_bytes = int64_t{80} << 30};

// Shared memory a block and a multiprocessor: CUDA C++ Programming Guide, "Technical Specifications
// per Compute Capability"; multiprocessors: the products' data sheets.
constexpr DeviceLimits kA100 = {80, 108, 166'912, 167'936, 40 << 20, int64_t{80} << 30};
constexpr DeviceLimits kL40s = {89, 142, 101'376, 102'400, 96 << 20, int64_t{48} << 30};
constexpr DeviceLimits kB200 = {100, 148, 232'448, 233'472, 126 << 20, int64_t{180} << 30};
constexpr DeviceLimits kRtxPro6000 = {120, 188, 101'376, 102'400, 128 << 20, int64_t{96} << 30};
constexpr WeightKind kAllKinds[] = {WeightKind::kInt4,
                                    WeightKind::kInt4ZeroPoint,
                                    WeightKind::kBf16,
                                    WeightKind::kInt4Group64,
                                    WeightKind::kInt4ZeroPointGroup64,
                                    WeightKind::kInt4Group32,
                                    WeightKind::kInt4ZeroPointGroup32};

TEST(SelectDecodeGemmTest, TheMapOfAMatrixIsTheSameForEveryBatch) {
  for (const int n : {14336, 12288, 57344, 32768, 100}) {
    const auto one = SelectDecodeGemm({1, n, 12288, WeightKind::kInt4}, kH100);
    ASSERT_TRUE(one.has_value());
    for (int m = 2; m <= kMaxDecodeRows; ++m) {
      const auto other = SelectDecodeGemm({m, n, 12288, WeightKind::kInt4}, kH100);
      ASSERT_TRUE(other.has_value());
      EXPECT_EQ(one->map.blocks, other->map.blocks);
      EXPECT_EQ(one->map.tiles, other->map.tiles);
      EXPECT_EQ(one->map.steps_per_tile, other->map.steps_per_tile);
      EXPECT_GE(other->padded_rows, m);
      EXPECT_LE(other->shared_bytes, 232'448u);
    }
  }
}

TEST(SelectDecodeGemmTest, RefusesWhatNoKernelCanDo) {
  EXPECT_FALSE(SelectDecodeGemm({0, 256, 128, WeightKind::kInt4}, kH100).has_value());
  EXPECT_FALSE(SelectDecodeGemm({65, 256, 128, WeightKind::kInt4}, kH100).has_value());
  EXPECT_FALSE(SelectDecodeGemm({1, 256, 192, WeightKind::kInt4}, kH100).has_value());
  EXPECT_FALSE(SelectDecodeGemm({1, 0, 128, WeightKind::kInt4}, kH100).has_value());
  DeviceLimits old = kA100;
  old.compute_capability = 75;
  EXPECT_FALSE(SelectDecodeGemm({1, 256, 128, WeightKind::kInt4}, old).has_value());
}

TEST(SelectDecodeGemmTest, EveryDeviceHasAFamilyThatFits) {
  struct Row {
    DeviceLimits device;
    GemmFamily up_to_8_rows, more_rows;
  };
  for (const Row& row : {Row{kA100, GemmFamily::kAsync, GemmFamily::kAsync},
                         Row{kL40s, GemmFamily::kAsync, GemmFamily::kAsync},
                         Row{kH100, GemmFamily::kBulk, GemmFamily::kWgmma},
                         Row{kB200, GemmFamily::kBulk, GemmFamily::kBulk},
                         Row{kRtxPro6000, GemmFamily::kBulk, GemmFamily::kBulk}}) {
    for (const WeightKind kind : kAllKinds) {
      for (const int m : {1, 8, 9, 16, 32, 64}) {
        const auto config = SelectDecodeGemm({m, 12288, 12288, kind}, row.device);
        ASSERT_TRUE(config.has_value()) << row.device.compute_capability << ", m " << m;
        EXPECT_EQ(config->family, m <= 8 ? row.up_to_8_rows : row.more_rows);
        EXPECT_EQ(config->map.blocks, row.device.sm_count);
        EXPECT_GE(config->stages, 2);
        // Static variables of the kernels beside it.
        EXPECT_LE(config->shared_bytes + 64, size_t(row.device.shared_bytes_per_block));
      }
    }
  }
}

TEST(SelectDecodeGemmTest, AFamilyThatTheDeviceLacksIsRefused) {
  const DecodeGemmShape shape = {16, 256, 128, WeightKind::kInt4};
  const auto has = [&](GemmFamily family, const DeviceLimits& device) {
    return CompleteDecodeGemm({.family = family, .padded_rows = 16, .stages = 4}, shape, device)
        .has_value();
  };
  EXPECT_TRUE(has(GemmFamily::kAsync, kA100));
  EXPECT_FALSE(has(GemmFamily::kBulk, kA100));
  EXPECT_FALSE(has(GemmFamily::kWgmma, kA100));
  EXPECT_TRUE(has(GemmFamily::kBulk, kRtxPro6000));
  EXPECT_FALSE(has(GemmFamily::kWgmma, kRtxPro6000));
  EXPECT_TRUE(has(GemmFamily::kAsync, kH100));
}

TEST(SelectPrefillGemmTest, TilesAreHalvedWhereThatShortensTheLastWave) {
  struct Row {
    int m, n, tile_rows;
  };
  for (const Row& row : {Row{512, 12288, 128},      // 192 tiles, 2 waves; 384, 3 waves
                         Row{1024, 57344, 256},     // 1792, 14 waves; 3584, 28 waves
                         Row{2048, 14336, 256}}) {  // 896, 7 waves; 1792, 14 waves
    const auto config = SelectPrefillGemm({row.m, row.n, 12288, WeightKind::kInt4}, kH100);
    ASSERT_TRUE(config.has_value());
    EXPECT_EQ(config->walk, PrefillWalk::kTiles);
    EXPECT_EQ(config->tile_rows, row.tile_rows) << row.m << " x " << row.n;
    EXPECT_EQ(config->padded_rows, row.m);
    EXPECT_EQ(config->tiles, row.m / 128 * (row.n / row.tile_rows));
    EXPECT_LE(config->shared_bytes, 232'448u);
  }
}

// The activations' padding follows from the rows alone: one buffer serves every matrix of a layer.
TEST(SelectPrefillGemmTest, FewRowsWalkTheStripesInWindowsThatHoldThem) {
  struct Row {
    int m, last_window, padded_rows;
  };
  for (const Row& row :
       {Row{1, 16, 128}, Row{65, 80, 128}, Row{80, 80, 128}, Row{81, 96, 128}, Row{96, 96, 128},
        Row{97, 128, 128}, Row{128, 128, 128}, Row{160, 32, 256}, Row{384, 128, 384}}) {
    const auto config = SelectPrefillGemm({row.m, 57344, 12288, WeightKind::kInt4}, kH100);
    ASSERT_TRUE(config.has_value());
    EXPECT_EQ(config->walk, PrefillWalk::kStripes) << row.m;
    EXPECT_EQ(config->full_window.padded_rows, 128);
    EXPECT_EQ(config->last_window.padded_rows, row.last_window) << row.m;
    EXPECT_EQ(config->padded_rows, row.padded_rows);
    EXPECT_LE(config->full_window.shared_bytes, 232'448u);
    for (const int n : {100, 12288}) {
      EXPECT_EQ(SelectPrefillGemm({row.m, n, 12288, WeightKind::kInt4}, kH100)->padded_rows,
                row.padded_rows);
    }
  }
}

TEST(SelectPrefillGemmTest, ATilesSumIsCutWhereTheDecodeGemmCutsItForAnyNumberOfRows) {
  for (const int n : {100, 12288, 14336, 57344}) {
    for (const int m : {1, 64, 65, 200, 8192}) {
      const auto prefill = SelectPrefillGemm({m, n, 12288, WeightKind::kInt4}, kH100);
      const auto decode = SelectDecodeGemm({8, n, 12288, WeightKind::kInt4}, kH100);
      ASSERT_TRUE(prefill.has_value() && decode.has_value());
      EXPECT_EQ(prefill->map.tiles, decode->map.tiles);
      EXPECT_EQ(prefill->map.steps_per_tile, decode->map.steps_per_tile);
      EXPECT_EQ(prefill->map.blocks, decode->map.blocks);
      EXPECT_GE(PartialsBytes(*prefill), PartialsBytes(*decode));
      if (prefill->walk == PrefillWalk::kStripes) {
        EXPECT_GE(PartialsBytes(*prefill), PartialsBytes(prefill->full_window));
      } else {
        EXPECT_GE(PartialsBytes(*prefill), size_t{4} * prefill->blocks * prefill->tile_rows * 128);
      }
    }
  }
}

TEST(SelectPrefillGemmTest, RefusesWhatNoKernelCanDo) {
  EXPECT_FALSE(SelectPrefillGemm({0, 256, 128, WeightKind::kInt4}, kH100).has_value());
  EXPECT_FALSE(SelectPrefillGemm({100, 256, 192, WeightKind::kInt4}, kH100).has_value());
  EXPECT_FALSE(SelectPrefillGemm({1 << 30, 57344, 128, WeightKind::kInt4}, kH100).has_value());
  DeviceLimits old = kA100;
  old.compute_capability = 75;
  EXPECT_FALSE(SelectPrefillGemm({100, 256, 128, WeightKind::kInt4}, old).has_value());
  EXPECT_FALSE(CompletePrefillGemm({.tile_rows = 256}, {100, 256, 128, WeightKind::kInt4}, kB200)
                   .has_value());
}

// Windows of 128 rows wherever two stages of them fit: 99 KB hold those of all kinds but three.
TEST(SelectPrefillGemmTest, WithoutWgmmaBothWalksAreFedByCpAsync) {
  for (const DeviceLimits& device : {kA100, kL40s, kB200, kRtxPro6000}) {
    for (const WeightKind kind : kAllKinds) {
      const bool is_large = UnitBytes(kind) > UnitBytes(WeightKind::kInt4ZeroPoint);
      const int window = is_large && device.shared_bytes_per_block < 160'000 ? 64 : 128;
      for (const int m : {1, 20, 64, 65, 128, 129, 200, 2048, 8190}) {
        const auto config = SelectPrefillGemm({m, 14336, 12288, kind}, device);
        ASSERT_TRUE(config.has_value()) << device.compute_capability << ", m " << m;
        EXPECT_EQ(config->family, GemmFamily::kAsync);
        const bool tiles = config->walk == PrefillWalk::kTiles;
        EXPECT_TRUE(tiles || m < 8190 || window == 64);
        EXPECT_FALSE(tiles && (m <= 200 || window == 64));
        if (tiles) {
          EXPECT_EQ(config->tile_rows, kUnitRows);
          EXPECT_EQ(config->blocks, device.sm_count);
          EXPECT_GE(config->stages, 2);
          EXPECT_LE(config->shared_bytes + 64, size_t(device.shared_bytes_per_block));
          continue;
        }
        EXPECT_EQ(config->full_window.family, GemmFamily::kAsync);
        EXPECT_EQ(config->full_window.padded_rows, window);
        EXPECT_GE(config->last_window.padded_rows, (m - 1) % window + 1);
        const int last_row = (m - 1) / window * window;
        EXPECT_LE(last_row + config->last_window.padded_rows, config->padded_rows);
        EXPECT_GE(config->full_window.stages, 2);
        EXPECT_LE(config->full_window.shared_bytes + 64, size_t(device.shared_bytes_per_block));
        EXPECT_GE(PartialsBytes(*config), PartialsBytes(config->full_window));
        EXPECT_EQ(CountersBytes(*config), CountersBytes(config->full_window));
      }
    }
  }
}

TEST(StripeMapTest, StripesCoverEveryStepOnceAndOwnersAgree) {
  for (const StripeMap map : {StripeMap{56, 96, 132}, StripeMap{3, 7, 21}, StripeMap{1, 1, 1},
                              StripeMap{48, 224, 132}, StripeMap{5, 2, 7}}) {
    EXPECT_EQ(map.Begin(0), 0);
    EXPECT_EQ(map.Begin(map.blocks), map.steps());
    for (int block = 0; block < map.blocks; ++block) {
      EXPECT_LT(map.Begin(block), map.Begin(block + 1));
      for (int step = map.Begin(block); step < map.Begin(block + 1); ++step) {
        EXPECT_EQ(map.Owner(step), block);
      }
    }
  }
}

TEST(RepackTest, PaddingRowsHaveZeroWeights) {
  const std::vector<uint32_t> weight(16, 0xffffffffu);
  const std::vector<bf16> scale(1, ToBf16(0.25f));
  std::vector<uint32_t> packed(PackedBytes(WeightKind::kInt4, 1, 128) / 4);
  const Int4Source source = {weight.data(), scale.data(), nullptr, 1, 128, false};
  ASSERT_TRUE(RepackInt4(source, packed.data()).ok());
  EXPECT_EQ(packed[0] & 0xf0u, 0x80u);  // row 8 is padding: nibble 8 is zero
  EXPECT_EQ(packed[0] & 0xfu, 0xfu);    // row 0
  EXPECT_EQ(packed[1024], 0x7f00u);     // scales of rows 0 and 8: (2^-2 * 2^129, 0)
}

TEST(RepackTest, RefusesScalesThatHaveNoPackedForm) {
  const std::vector<uint32_t> weight(16, 0);
  std::vector<uint32_t> packed(PackedBytes(WeightKind::kInt4, 1, 128) / 4);
  std::vector<bf16> scale(1, ToBf16(kScaleLimit));
  Int4Source source = {weight.data(), scale.data(), nullptr, 1, 128, false};
  EXPECT_FALSE(RepackInt4(source, packed.data()).ok());
  uint32_t too_large = 0;
  source.too_large = &too_large;
  EXPECT_TRUE(RepackInt4(source, packed.data()).ok());
  EXPECT_EQ(too_large, 1u);
  scale[0].bits -= 1;  // the largest that fits, and a subnormal
  too_large = 0;
  EXPECT_TRUE(RepackInt4(source, packed.data()).ok());
  EXPECT_EQ(packed[1024], 0x7f7fu);
  scale[0].bits = 1;
  EXPECT_TRUE(RepackInt4(source, packed.data()).ok());
  EXPECT_EQ(packed[1024], 0x3d80u);  // 2^-133 * 2^129
  EXPECT_EQ(too_large, 0u);
}

TEST(RepackTest, AZeroPointOfSixteenIsKept) {
  const std::vector<uint32_t> weight(16, 0);
  const std::vector<bf16> scale(1, ToBf16(1.0f));
  const std::vector<uint8_t> zero(1, 16);
  const Int4Source source = {weight.data(), scale.data(), zero.data(), 1, 128, false};
  std::vector<uint32_t> packed(PackedBytes(KindOf(source), 1, 128) / 4);
  ASSERT_TRUE(RepackInt4(source, packed.data()).ok());
  EXPECT_EQ(ToFloat({static_cast<uint16_t>(packed[1025])}), -144.0f);        // row 0
  EXPECT_EQ(ToFloat({static_cast<uint16_t>(packed[1025] >> 16)}), -136.0f);  // padding: zero is 8
  EXPECT_EQ(DequantiseReference(source)[0], -16.0f);
}

// The first outputs of SplitMix64 for seed 1234567, as its authors' C code prints them.
TEST(RandomSourceTest, WordsAreTheGeneratorsOutputsInOrderAndScalesFollow) {
  constexpr uint64_t kOutputs[] = {6457827717110365317u, 3203168211198807973u, 9817491932198370423u,
                                   4593380528125082431u, 16408922859458223821u};
  std::vector<uint32_t> weight(4);
  std::vector<bf16> scale(4);
  ASSERT_TRUE(FillRandomInt4({1234567, weight.data(), scale.data(), 2, 16, 8}).ok());
  for (int i = 0; i < 4; ++i) EXPECT_EQ(weight[i], static_cast<uint32_t>(kOutputs[i]));
  const float spread = 0.75f + 0.5f * static_cast<float>(kOutputs[4] >> 40) * 0x1p-24f;
  EXPECT_EQ(scale[0].bits, ToBf16(spread / (4.6f * 4.0f)).bits);
  EXPECT_FALSE(FillRandomInt4({1, weight.data(), scale.data(), 2, 16, 12}).ok());
  EXPECT_FALSE(FillRandomInt4({1, weight.data(), scale.data(), 2, 24, 16}).ok());
}

TEST(RepackTest, RefusesGroupsThatDoNotFit) {
  EXPECT_FALSE(RepackInt4({nullptr, nullptr, nullptr, 16, 64, false}, nullptr).ok());
  EXPECT_FALSE(RepackInt4({nullptr, nullptr, nullptr, 24, 128, true}, nullptr).ok());
  EXPECT_FALSE(RepackInt4({nullptr, nullptr, nullptr, 16, 128, false, 96}, nullptr).ok());
  EXPECT_FALSE(RepackInt4({nullptr, nullptr, nullptr, 16, 128, false, 16}, nullptr).ok());
}

}  // namespace
}  // namespace behemoth::kernels
