// One set of bits for every number of rows: the kernels that a row may meet (mma.sync fed by
// cp.async and by bulk copies, wgmma of 16 to 128 tokens, tiles of 256 and 128 weight rows; of
// these what the device has) on the model's own widths of k, whose tiles the stripe map cuts into
// up to five pieces. Weights are made and packed on the device, which checks those kernels against
// their host versions on the way.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/w4a16_gemm/decode_gemm.h"
#include "kernels/w4a16_gemm/prefill_gemm.h"
#include "kernels/w4a16_gemm/random_source.h"
#include "kernels/w4a16_gemm/repack.h"
#include "tests/kernels/fused_device_array.h"

namespace behemoth::kernels {
namespace {

struct BitsCase {
  WeightKind kind;
  int n, k;
  GemmEpilogue epilogue = GemmEpilogue::kStore;
  int release_lanes = 1;
};

constexpr bf16 kNan = {0x7fc0};
constexpr uint64_t kSeed = 42;

int GroupColumns(WeightKind kind) { return kInt4UnitColumns / UnitGroups(kind); }

class RowBits : public testing::TestWithParam<BitsCase> {
 protected:
  void SetUp() override {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
      GTEST_SKIP() << "no CUDA device on this machine";
    }
    limits_ = LimitsOfDevice();
    const auto [kind, n, k, epilogue, release_lanes] = GetParam();
    ASSERT_EQ(cudaMalloc(&packed_, static_cast<size_t>(PackedBytes(kind, n, k))), cudaSuccess);
    if (kind == WeightKind::kBf16) {
      PackBf16();
    } else {
      PackInt4();
    }
    Values values(7);
    act_ = values.Bf16(static_cast<size_t>(kMaxDecodeRows) * static_cast<size_t>(k));
    residual_ = values.Bf16(static_cast<size_t>(kMaxDecodeRows) * static_cast<size_t>(n), 4.0f);
  }
  void TearDown() override { cudaFree(packed_); }

  void PackInt4() {
    const auto [kind, n, k, epilogue, release_lanes] = GetParam();
    const size_t groups = static_cast<size_t>(n) * static_cast<size_t>(k / GroupColumns(kind));
    const DeviceArray<uint32_t> words(std::vector<uint32_t>(static_cast<size_t>(n) * k / 8));
    const DeviceArray<bf16> scale{std::vector<bf16>(groups)};
    ASSERT_TRUE(
        LaunchRandomInt4({kSeed, words.get(), scale.get(), n, k, GroupColumns(kind)}, {}).ok());
    Values values(8);
    std::vector<uint8_t> zero(groups);
    for (uint8_t& z : zero) z = static_cast<uint8_t>(values.Below(17));
    const DeviceArray<uint8_t> zeros(zero);
    const Int4Source source = {words.get(),
                               scale.get(),
                               HasZeroPoints(kind) ? zeros.get() : nullptr,
                               n,
                               k,
                               epilogue == GemmEpilogue::kSiluMul,
                               GroupColumns(kind)};
    ASSERT_EQ(KindOf(source), kind);
    ASSERT_TRUE(LaunchRepackInt4(source, packed_, {}).ok());
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  }

  void PackBf16() {
    const auto [kind, n, k, epilogue, release_lanes] = GetParam();
    const float scale = 1.0f / std::sqrt(static_cast<float>(k));
    const DeviceArray<bf16> weight(Values(9).Bf16(static_cast<size_t>(n) * k, scale));
    ASSERT_TRUE(LaunchRepackBf16({weight.get(), n, k, false}, packed_, {}).ok());
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  }

  std::vector<bf16> Decode(int m, GemmFamily family) {
    const auto [kind, n, k, epilogue, release_lanes] = GetParam();
    DecodeGemmConfig choice;
    choice.family = family, choice.padded_rows = PaddedRows(m), choice.stages = 3;
    choice.release_lanes = GetParam().release_lanes;
    const auto config = CompleteDecodeGemm(choice, {m, n, k, kind}, limits_);
    EXPECT_TRUE(config.has_value());
    const DeviceArray<uint32_t> counters(std::vector<uint32_t>(CountersBytes(*config) / 4));
    return Out(m, config->padded_rows, PartialsBytes(*config), [&](DecodeGemmArgs args) {
      args.counters = counters.get();
      return LaunchDecodeGemm(*config, kind, args, {});
    });
  }

  std::vector<bf16> Prefill(int m, PrefillGemmConfig choice) {
    const auto [kind, n, k, epilogue, release_lanes] = GetParam();
    choice.release_lanes = GetParam().release_lanes;
    const auto config = CompletePrefillGemm(choice, {m, n, k, kind}, limits_);
    EXPECT_TRUE(config.has_value());
    const DeviceArray<uint32_t> counters(std::vector<uint32_t>(CountersBytes(*config) / 4));
    return Out(m, config->padded_rows, PartialsBytes(*config), [&](DecodeGemmArgs args) {
      args.counters = counters.get();
      return LaunchPrefillGemm(*config, kind, args, {});
    });
  }

  // Row r of a batch is sample row r % 64; pad rows and partial sums are NaN.
  template <typename LaunchOne>
  std::vector<bf16> Out(int m, int padded_rows, size_t partials_bytes, LaunchOne launch) {
    const auto [kind, n, k, epilogue, release_lanes] = GetParam();
    std::vector<bf16> act(static_cast<size_t>(k) * static_cast<size_t>(padded_rows), kNan), addend;
    for (int row = 0; row < m; ++row) {
      const size_t sample = static_cast<size_t>(row % kMaxDecodeRows);
      for (int i = 0; i < k; ++i) {
        act[ActivationIndex(row, i, padded_rows)] = act_[sample * k + i];
      }
      const auto from = residual_.begin() + static_cast<int64_t>(sample) * n;
      addend.insert(addend.end(), from, from + n);
    }
    const int columns = epilogue == GemmEpilogue::kSiluMul ? n / 2 : n;
    const DeviceArray<bf16> d_act(act), d_addend(addend);
    const DeviceArray<bf16> out(std::vector<bf16>(static_cast<size_t>(m) * columns, kNan));
    const DeviceArray<float> partials(
        std::vector<float>(partials_bytes / 4, std::numeric_limits<float>::quiet_NaN()));
    const KernelError error = launch(DecodeGemmArgs{.weight = packed_,
                                                    .act = d_act.get(),
                                                    .out = out.get(),
                                                    .residual = d_addend.get(),
                                                    .partials = partials.get(),
                                                    .m = m,
                                                    .n = n,
                                                    .k = k,
                                                    .epilogue = epilogue});
    EXPECT_TRUE(error.ok()) << error.operation;
    return out.Download();
  }

  DeviceLimits limits_;
  void* packed_ = nullptr;
  std::vector<bf16> act_, residual_;
};

void ExpectSample(const std::vector<bf16>& out, const std::vector<bf16>& sample,
                  const std::string& what) {
  for (size_t i = 0; i < out.size(); ++i) {
    ASSERT_EQ(out[i].bits, sample[i % sample.size()].bits) << what << ", element " << i;
  }
}

TEST_P(RowBits, AreTheSameInEveryKernelAndForEveryNumberOfRows) {
  const std::vector<bf16> sample = Decode(64, GemmFamily::kAsync);
  for (const bf16 value : sample) ASSERT_LT(std::abs(ToFloat(value)), 1e4f);  // a number, for one
  for (const int m : {1, 8, 16, 32, 64}) {
    const std::string rows = ", m " + std::to_string(m);
    ExpectSample(Decode(m, GemmFamily::kAsync), sample, "cp.async" + rows);
    if (limits_.has_bulk_copy()) {
      ExpectSample(Decode(m, GemmFamily::kBulk), sample, "bulk copies" + rows);
    }
    if (limits_.has_wgmma() && m > 8) {
      ExpectSample(Decode(m, GemmFamily::kWgmma), sample, "wgmma" + rows);
    }
  }
  const auto [kind, n, k, epilogue, release_lanes] = GetParam();
  for (const int m : {1, 8, 64, 65, 90, 128, 200}) {
    const std::string rows = ", m " + std::to_string(m);
    ExpectSample(Prefill(m, {.walk = PrefillWalk::kStripes, .family = GemmFamily::kAsync}), sample,
                 "stripes by cp.async" + rows);
    const PrefillGemmConfig tiles = {.tile_rows = 256, .family = GemmFamily::kAsync};
    const bool fit = CompletePrefillGemm(tiles, {m, n, k, kind}, limits_).has_value();
    EXPECT_TRUE(fit || limits_.shared_bytes_per_block < 160'000) << "two stages";
    if (fit) ExpectSample(Prefill(m, tiles), sample, "tiles by cp.async" + rows);
    if (!limits_.has_wgmma()) continue;
    for (const int tile_rows : {256, 128}) {
      ExpectSample(Prefill(m, {.tile_rows = tile_rows}), sample,
                   "tiles of " + std::to_string(tile_rows) + rows);
    }
    ExpectSample(Prefill(m, {.walk = PrefillWalk::kStripes}), sample, "stripes by wgmma" + rows);
  }
}

// The first is for the sanitizers: small, but four steps a block, so that its ring of three is
// refilled, and released in the form that racecheck understands.
INSTANTIATE_TEST_SUITE_P(
    Shapes, RowBits,
    testing::Values(BitsCase{WeightKind::kInt4, 2000, 8448, GemmEpilogue::kStore, 32},
                    BitsCase{WeightKind::kInt4, 300, 256},
                    BitsCase{WeightKind::kInt4, 3000, 12288, GemmEpilogue::kAddResidual},
                    BitsCase{WeightKind::kInt4, 12288, 12288},
                    BitsCase{WeightKind::kInt4, 14336, 4096, GemmEpilogue::kSiluMul},
                    BitsCase{WeightKind::kInt4ZeroPoint, 2048, 28672},
                    BitsCase{WeightKind::kInt4Group64, 1000, 12288},
                    BitsCase{WeightKind::kInt4ZeroPointGroup64, 1504, 2048, GemmEpilogue::kSiluMul},
                    BitsCase{WeightKind::kInt4Group32, 777, 5120, GemmEpilogue::kAddResidual},
                    BitsCase{WeightKind::kInt4ZeroPointGroup32, 2304, 1024},
                    BitsCase{WeightKind::kBf16, 2000, 12288}, BitsCase{WeightKind::kBf16, 33, 32}));

TEST(RandomInt4Test, TheDeviceFillsTheBitsOfTheHost) {
  SKIP_WITHOUT_GPU();
  for (const auto& [n, k, group] : {std::tuple{3, 40, 8}, {100, 1024, 128}, {257, 4096, 4096}}) {
    std::vector<uint32_t> weight(static_cast<size_t>(n) * k / 8);
    std::vector<bf16> scale(static_cast<size_t>(n) * (k / group));
    const DeviceArray<uint32_t> d_weight(weight);
    const DeviceArray<bf16> d_scale(scale);
    ASSERT_TRUE(FillRandomInt4({kSeed, weight.data(), scale.data(), n, k, group}).ok());
    ASSERT_TRUE(LaunchRandomInt4({kSeed, d_weight.get(), d_scale.get(), n, k, group}, {}).ok());
    EXPECT_TRUE(SameBits(d_weight.Download(), weight));
    EXPECT_TRUE(SameBits(d_scale.Download(), scale));
  }
}

// Packing on the device equals packing on the host, which the reference product stands on.
TEST(RepackDeviceTest, PacksTheBitsOfTheHost) {
  SKIP_WITHOUT_GPU();
  constexpr int kRows = 272, kColumns = 256;
  std::vector<uint32_t> weight(kRows * kColumns / 8);
  std::vector<bf16> scale(kRows * kColumns / 64);
  ASSERT_TRUE(FillRandomInt4({3, weight.data(), scale.data(), kRows, kColumns, 64}).ok());
  std::vector<uint8_t> zero(scale.size());
  for (size_t i = 0; i < zero.size(); ++i) zero[i] = static_cast<uint8_t>(i % 17);
  const DeviceArray<uint32_t> d_weight(weight);
  const DeviceArray<bf16> d_scale(scale);
  const DeviceArray<uint8_t> d_zero(zero);
  for (const bool interleave : {false, true}) {
    const Int4Source source = {weight.data(), scale.data(), zero.data(), kRows,
                               kColumns,      interleave,   64};
    std::vector<uint8_t> want(PackedBytes(KindOf(source), kRows, kColumns));
    const DeviceArray<uint8_t> packed(want);
    ASSERT_TRUE(RepackInt4(source, want.data()).ok());
    const Int4Source on_device = {
        d_weight.get(), d_scale.get(), d_zero.get(), kRows, kColumns, interleave, 64};
    ASSERT_TRUE(LaunchRepackInt4(on_device, packed.get(), {}).ok());
    EXPECT_TRUE(SameBits(packed.Download(), want));
  }
}

}  // namespace
}  // namespace behemoth::kernels
