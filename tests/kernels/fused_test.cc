// The row-wise kernels against their references. Bounds are in units of the result's own rounding:
// a value that two correct fp32 computations round to bf16 may differ by one step, 2^-7 relative at
// most, per rounding on the way.
#include "kernels/fused/fused.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/paged_attention/e4m3.h"
#include "tests/kernels/fused_device_array.h"

namespace behemoth::kernels {
namespace {

constexpr double kStep = 1.0 / 128;  // of bf16, relative
constexpr bf16 kPoison{0x7fff};

void ExpectNear(const std::vector<bf16>& actual, const std::vector<bf16>& expected, int roundings,
                double absolute) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    if (expected[i].bits == kPoison.bits) {
      ASSERT_EQ(actual[i].bits, kPoison.bits) << "written where nothing belongs: " << i;
      continue;
    }
    const double want = ToFloat(expected[i]);
    ASSERT_TRUE(std::fabs(ToFloat(actual[i]) - want) <=
                roundings * kStep * std::fabs(want) + absolute)
        << i << ": " << ToFloat(actual[i]) << " for " << want;
  }
}

TEST(EmbeddingTest, TakesPendingTokensFromTheirSlotsAndZeroesWildIds) {
  SKIP_WITHOUT_GPU();
  constexpr int kHidden = 24, kVocabulary = 50;
  Values values(1);
  const std::vector<bf16> table = values.Bf16(kHidden * kVocabulary);
  const std::vector<int32_t> ids = {0, 49, 50, -1, -1, 0x7fffffff}, slot = {0, 0, 0, 2, 1, 0};
  const std::vector<int32_t> slot_token = {3, 17, -9};
  EmbeddingArgs args = {.table = table.data(),
                        .token_ids = ids.data(),
                        .slot = slot.data(),
                        .slot_token = slot_token.data(),
                        .rows = 6,
                        .vocabulary = kVocabulary,
                        .hidden = kHidden};
  std::vector<bf16> expected(6 * kHidden, kPoison);
  args.out = expected.data();
  reference::Embedding(args);
  const DeviceArray<bf16> d_table(table), d_out(std::vector<bf16>(6 * kHidden, kPoison));
  const DeviceArray<int32_t> d_ids(ids), d_slot(slot), d_token(slot_token);
  args.table = d_table.get();
  args.token_ids = d_ids.get();
  args.slot = d_slot.get();
  args.slot_token = d_token.get();
  args.out = d_out.get();
  ASSERT_TRUE(LaunchEmbedding(args, {}).ok());
  EXPECT_TRUE(SameBits(d_out.Download(), expected));
}

TEST(EmbeddingTest, ASpreadVocabularyIsReadFromItsTables) {
  SKIP_WITHOUT_GPU();
  constexpr int kHidden = 24, kEach = 10;
  Values values(8);
  const std::vector<bf16> first = values.Bf16(kHidden * kEach),
                          second = values.Bf16(kHidden * kEach);
  const std::vector<int32_t> ids = {0, 9, 10, 19, 20, 13};
  EmbeddingArgs args = {
      .token_ids = ids.data(), .rows = 6, .vocabulary = 2 * kEach, .hidden = kHidden};
  args.spread_rows = kEach;
  args.spread[0] = first.data(), args.spread[1] = second.data();
  std::vector<bf16> expected(6 * kHidden, kPoison);
  args.out = expected.data();
  reference::Embedding(args);
  EXPECT_EQ(expected[2 * kHidden].bits, second[0].bits);
  const DeviceArray<bf16> d_first(first), d_second(second);
  const DeviceArray<bf16> d_out(std::vector<bf16>(6 * kHidden, kPoison));
  const DeviceArray<int32_t> d_ids(ids);
  args.spread[0] = d_first.get(), args.spread[1] = d_second.get();
  args.token_ids = d_ids.get();
  args.out = d_out.get();
  ASSERT_TRUE(LaunchEmbedding(args, {}).ok());
  EXPECT_TRUE(SameBits(d_out.Download(), expected));
}

class RmsNormWidths : public testing::TestWithParam<int> {};

TEST_P(RmsNormWidths, EqualsTheReferenceInBothLayouts) {
  SKIP_WITHOUT_GPU();
  const int hidden = GetParam();
  constexpr int kRows = 5, kPackedRows = 8;
  Values values(2);
  const size_t count = static_cast<size_t>(kRows * hidden);
  const std::vector<bf16> delta = values.Bf16(count, 3.0f), residual = values.Bf16(count, 8.0f);
  const std::vector<bf16> gamma = values.Bf16(static_cast<size_t>(hidden));
  for (const bool has_delta : {true, false}) {
    std::vector<bf16> want_residual = residual, want_plain(count, kPoison);
    std::vector<bf16> want_packed(static_cast<size_t>(kPackedRows * hidden), kPoison);
    RmsNormArgs args = {.delta = has_delta ? delta.data() : nullptr,
                        .residual = want_residual.data(),
                        .gamma = gamma.data(),
                        .out = {want_plain.data(), want_packed.data(), kPackedRows},
                        .rows = kRows,
                        .hidden = hidden};
    reference::RmsNorm(args);
    const DeviceArray<bf16> d_delta(delta), d_residual(residual), d_gamma(gamma);
    const DeviceArray<bf16> plain(std::vector<bf16>(count, kPoison));
    const DeviceArray<bf16> packed(std::vector<bf16>(want_packed.size(), kPoison));
    args.delta = has_delta ? d_delta.get() : nullptr;
    args.residual = d_residual.get();
    args.gamma = d_gamma.get();
    args.out = {plain.get(), packed.get(), kPackedRows};
    ASSERT_TRUE(LaunchRmsNorm(args, {}).ok());
    EXPECT_TRUE(SameBits(d_residual.Download(), want_residual));
    ExpectNear(plain.Download(), want_plain, 2, 0);
    ExpectNear(packed.Download(), want_packed, 2, 0);
  }
}
INSTANTIATE_TEST_SUITE_P(All, RmsNormWidths, testing::Values(8, 512, 4104, 12288, 20480));

TEST(AddRowsTest, EqualsTheReferenceAndLeavesTheRowsBehind) {
  SKIP_WITHOUT_GPU();
  constexpr int kRows = 3, kHidden = 4104, kCount = kRows * kHidden;
  Values values(7);
  const std::vector<bf16> delta = values.Bf16(kCount, 3.0f);
  std::vector<bf16> want = values.Bf16(kCount + kHidden, 8.0f);
  const DeviceArray<bf16> d_residual(want), d_delta(delta);
  reference::AddRows(
      {.residual = want.data(), .delta = delta.data(), .rows = kRows, .hidden = kHidden});
  ASSERT_TRUE(
      LaunchAddRows(
          {.residual = d_residual.get(), .delta = d_delta.get(), .rows = kRows, .hidden = kHidden},
          {})
          .ok());
  EXPECT_TRUE(SameBits(d_residual.Download(), want));
}

class RopeVariants : public testing::TestWithParam<std::tuple<int, KvType>> {};

TEST_P(RopeVariants, RotatesAndStoresWhereAttentionReads) {
  SKIP_WITHOUT_GPU();
  const auto [head_dim, type] = GetParam();
  const KvShape shape = {2, head_dim, type};
  constexpr int kQHeads = 10, kStride = 2048;
  const std::vector<int32_t> position = {0, 63, -1, 64, 131000, 9, kStride * 64};
  const std::vector<int32_t> table_row = {0, 0, 1, 1, 1, 1, 0};
  std::vector<int32_t> table(2 * kStride, 0x7fffffff);
  table[0] = 3, table[kStride] = 1, table[kStride + 1] = 4, table[kStride + 131000 / 64] = 0;
  const int rows = static_cast<int>(position.size());
  Values values(3);
  const std::vector<bf16> qkv = values.Bf16(static_cast<size_t>(rows * (kQHeads + 4) * head_dim));
  std::vector<float> frequency;
  for (int i = 0; i < head_dim / 2; ++i) {
    frequency.push_back(
        std::pow(1e6f, -2.0f * static_cast<float>(i) / static_cast<float>(head_dim)));
  }
  const std::vector<float> scale = {0.5f, 0.02f};
  std::vector<bf16> want_q(static_cast<size_t>(rows * kQHeads * head_dim), kPoison);
  const std::vector<uint8_t> blank(5 * KvBlockBytes(shape), 0x7f);
  std::vector<uint8_t> want_kv = blank;
  RopeKvWriteArgs args = {.qkv = qkv.data(),
                          .position = position.data(),
                          .inverse_frequency = frequency.data(),
                          .block_table = table.data(),
                          .table_row = table_row.data(),
                          .block_table_stride = kStride,
                          .q = want_q.data(),
                          .kv = want_kv.data(),
                          .k_scale = scale.data(),
                          .v_scale = scale.data(),
                          .shape = shape,
                          .q_heads = kQHeads,
                          .rows = rows};
  reference::RopeKvWrite(args);
  const DeviceArray<bf16> d_qkv(qkv), d_q(std::vector<bf16>(want_q.size(), kPoison));
  const DeviceArray<int32_t> d_position(position), d_table(table), d_row(table_row);
  const DeviceArray<float> d_frequency(frequency), d_scale(scale);
  const DeviceArray<uint8_t> d_kv(blank);
  args.qkv = d_qkv.get();
  args.position = d_position.get();
  args.inverse_frequency = d_frequency.get();
  args.block_table = d_table.get();
  args.table_row = d_row.get();
  args.q = d_q.get();
  args.kv = d_kv.get();
  args.k_scale = args.v_scale = d_scale.get();
  ASSERT_TRUE(LaunchRopeKvWrite(args, {}).ok());
  ExpectNear(d_q.Download(), want_q, 1, 1e-5);
  const std::vector<uint8_t> kv = d_kv.Download();
  if (type == KvType::kBf16) {
    std::vector<bf16> got(kv.size() / 2), want(kv.size() / 2);
    std::memcpy(got.data(), kv.data(), kv.size());
    std::memcpy(want.data(), want_kv.data(), kv.size());
    for (bf16& value : want) value = value.bits == 0x7f7f ? kPoison : value;
    for (bf16& value : got) value = value.bits == 0x7f7f ? kPoison : value;
    ExpectNear(got, want, 1, 1e-5);
    return;
  }
  for (size_t i = 0; i < kv.size(); ++i) {
    const float want = E4m3ToFloat(want_kv[i]), got = E4m3ToFloat(kv[i]);
    ASSERT_TRUE(std::fabs(got - want) <= 0.125f * std::fabs(want) + 0x1p-9f) << i;
    ASSERT_EQ(kv[i] == 0x7f, want_kv[i] == 0x7f) << i;
  }
}
INSTANTIATE_TEST_SUITE_P(All, RopeVariants,
                         testing::Combine(testing::Values(64, 128),
                                          testing::Values(KvType::kBf16, KvType::kE4m3)));

TEST(SiluMulTest, EqualsTheReferenceForPlainAndInterleavedColumns) {
  SKIP_WITHOUT_GPU();
  constexpr int kRows = 3, kWidth = 192;
  Values values(4);
  const std::vector<bf16> in = values.Bf16(kRows * 2 * kWidth, 4.0f);
  for (const int run : {8, 64, kWidth}) {
    std::vector<bf16> want(kRows * kWidth, kPoison), want_packed(4 * kWidth, kPoison);
    SiluMulArgs args = {.gate_up = in.data(),
                        .out = {want.data(), want_packed.data(), 4},
                        .rows = kRows,
                        .width = kWidth,
                        .run = run};
    reference::SiluMul(args);
    const DeviceArray<bf16> d_in(in), plain(std::vector<bf16>(want.size(), kPoison));
    const DeviceArray<bf16> packed(std::vector<bf16>(want_packed.size(), kPoison));
    args.gate_up = d_in.get();
    args.out = {plain.get(), packed.get(), 4};
    ASSERT_TRUE(LaunchSiluMul(args, {}).ok());
    ExpectNear(plain.Download(), want, 2, 1e-6);
    ExpectNear(packed.Download(), want_packed, 2, 1e-6);
  }
}

TEST(PermuteColumnsTest, EveryRowOfThePackedLayoutIsGatheredPadRowsToo) {
  SKIP_WITHOUT_GPU();
  for (const auto& [columns, rows] : {std::pair{8, 8}, {1000, 16}, {4096, 64}, {328, 384}}) {
    Values values(static_cast<uint32_t>(columns));
    std::vector<bf16> in(static_cast<size_t>(columns * rows)), want(in.size(), kPoison);
    for (bf16& value : in) value.bits = static_cast<uint16_t>(values.Below(1 << 16));
    std::vector<int32_t> permutation(static_cast<size_t>(columns));
    for (int i = 0; i < columns; ++i) {
      permutation[i] = i;
      std::swap(permutation[i], permutation[values.Below(i + 1)]);
    }
    PermuteColumnsArgs args = {.in = in.data(),
                               .permutation = permutation.data(),
                               .out = want.data(),
                               .packed_rows = rows,
                               .columns = columns};
    reference::PermuteColumns(args);
    const DeviceArray<bf16> d_in(in), d_out(std::vector<bf16>(in.size(), kPoison));
    const DeviceArray<int32_t> d_permutation(permutation);
    args.in = d_in.get();
    args.permutation = d_permutation.get();
    args.out = d_out.get();
    ASSERT_TRUE(LaunchPermuteColumns(args, {}).ok());
    EXPECT_TRUE(SameBits(d_out.Download(), want)) << columns << " x " << rows;
  }
}

TEST(KvBlockCopyTest, CopiesEveryLayersBlockAndNothingElse) {
  SKIP_WITHOUT_GPU();
  const KvShape shape = {2, 64, KvType::kE4m3};
  constexpr int kLayers = 3, kBlocks = 5;
  const size_t pool_bytes = kBlocks * KvBlockBytes(shape);
  Values values(5);
  std::vector<char> want(kLayers * pool_bytes);
  for (char& byte : want) byte = static_cast<char>(values.Below(256));
  const std::vector<int32_t> from_to = {0, 3, 4, 1};
  const DeviceArray<char> pools(want);
  const DeviceArray<int32_t> d_from_to(from_to);
  KvBlockCopyArgs args = {.first_pool = want.data(),
                          .layer_stride_bytes = static_cast<int64_t>(pool_bytes),
                          .from_to = from_to.data(),
                          .shape = shape,
                          .layers = kLayers,
                          .pairs = 2};
  reference::KvBlockCopy(args);
  args.first_pool = pools.get();
  args.from_to = d_from_to.get();
  ASSERT_TRUE(LaunchKvBlockCopy(args, {}).ok());
  EXPECT_TRUE(SameBits(pools.Download(), want));
}

TEST(FusedArgsTest, BrokenArgumentsAreRefusedByName) {
  SKIP_WITHOUT_GPU();
  bf16 word{};
  EXPECT_STREQ(
      LaunchRmsNorm({.residual = &word, .gamma = &word, .rows = 1, .hidden = 12}, {}).operation,
      "rms norm: hidden");
  EXPECT_STREQ(
      LaunchRmsNorm({.residual = &word, .gamma = &word, .rows = 1, .hidden = 16}, {}).operation,
      "rms norm: out");
  EXPECT_STREQ(LaunchPermuteColumns({.packed_rows = 8, .columns = 12}, {}).operation,
               "permute columns: columns");
  EXPECT_STREQ(LaunchRopeKvWrite({.shape = {1, 96, KvType::kBf16}}, {}).operation,
               "rope: head_dim");
}

}  // namespace
}  // namespace behemoth::kernels
