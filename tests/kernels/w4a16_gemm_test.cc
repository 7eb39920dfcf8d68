// The decode and the prefill GEMM on a GPU against the reference. Bound: fp32 accumulation of k
// terms in any order loses at most k * 2^-23 of the sum of magnitudes (the tensor core truncates),
// and the bf16 store 2^-8 of the result.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/reference/w4a16_reference.h"
#include "kernels/w4a16_gemm/decode_gemm.h"
#include "kernels/w4a16_gemm/prefill_gemm.h"

namespace behemoth::kernels {
namespace {

template <typename T>
struct DeviceArray {
  T* data = nullptr;
  size_t count;
  explicit DeviceArray(size_t size) : count(size) {
    EXPECT_EQ(cudaMalloc(reinterpret_cast<void**>(&data), size * sizeof(T) + 128), cudaSuccess);
    EXPECT_EQ(cudaMemset(data, 0, size * sizeof(T)), cudaSuccess);
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    EXPECT_EQ(cudaMemcpy(data, values.data(), count * sizeof(T), cudaMemcpyHostToDevice),
              cudaSuccess);
  }
  DeviceArray(const DeviceArray&) = delete;
  ~DeviceArray() { cudaFree(data); }
  std::vector<T> Read() const {
    std::vector<T> values(count);
    EXPECT_EQ(cudaMemcpy(values.data(), data, count * sizeof(T), cudaMemcpyDeviceToHost),
              cudaSuccess);
    return values;
  }
};

struct Case {
  int n, k;
  bool zero_points;
  GemmEpilogue epilogue;
  int group_columns = 128;
};

constexpr bf16 kNan = {0x7fc0};
constexpr float kNotANumber = std::numeric_limits<float>::quiet_NaN();
constexpr bf16 kUnwritten = {0x7fa5};

class DecodeGemmTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
      GTEST_SKIP() << "no CUDA device on this machine";
    }
    ASSERT_TRUE(QueryDeviceLimits(0, &limits_).ok());
    const Case& c = GetParam();
    std::mt19937 random(c.n * 31 + c.k);
    std::normal_distribution<float> normal;
    weight_.resize(size_t(c.n) * c.k / 8);
    for (uint32_t& word : weight_) word = random();
    scale_.resize(size_t(c.n) * c.k / c.group_columns);
    for (bf16& s : scale_) s = ToBf16(0.0077f * (1 + random() % 64));
    zero_.resize(scale_.size());
    for (uint8_t& z : zero_) z = random() % 17;
    act_.resize(size_t{64} * c.k);
    for (float& a : act_) a = ToFloat(ToBf16(normal(random)));
    residual_.resize(size_t{64} * c.n);
    for (bf16& r : residual_) r = ToBf16(10 * normal(random));
    source_ = {weight_.data(),
               scale_.data(),
               c.zero_points ? zero_.data() : nullptr,
               c.n,
               c.k,
               c.epilogue == GemmEpilogue::kSiluMul,
               c.group_columns};
    packed_.resize(PackedBytes(KindOf(source_), c.n, c.k));
    ASSERT_TRUE(RepackInt4(source_, packed_.data()).ok());
    // Zero times a finite number is zero: one reference product serves every batch size.
    product_ = MultiplyReference(act_, DequantiseReference(source_), 64, c.n, c.k);
  }

  int Columns() const {
    return GetParam().epilogue == GemmEpilogue::kSiluMul ? GetParam().n / 2 : GetParam().n;
  }

  // out [m, columns] of one launch; pad rows of the activations are NaN.
  std::vector<bf16> Run(int m, GemmFamily family) {
    const Case& c = GetParam();
    DecodeGemmConfig choice;
    choice.family = family, choice.padded_rows = PaddedRows(m), choice.stages = 32;
    const auto config = CompleteDecodeGemm(choice, {m, c.n, c.k, KindOf(source_)}, limits_);
    EXPECT_TRUE(config.has_value());
    const DeviceArray<float> partials(PartialsBytes(*config) / 4);
    const DeviceArray<uint32_t> counters(CountersBytes(*config) / 4);
    std::vector<bf16> values = Launched(m, PaddedRows(m), [&](DecodeGemmArgs args) {
      args.partials = partials.data, args.counters = counters.data;
      return LaunchDecodeGemm(*config, KindOf(source_), args, {});
    });
    for (const uint32_t counter : counters.Read()) EXPECT_EQ(counter, 0u);
    return values;
  }

  std::vector<bf16> RunPrefill(int m, int tile_rows) {
    const Case& c = GetParam();
    const auto config =
        CompletePrefillGemm({.tile_rows = tile_rows}, {m, c.n, c.k, KindOf(source_)}, limits_);
    EXPECT_TRUE(config.has_value());
    const DeviceArray<float> partials(std::vector<float>(PartialsBytes(*config) / 4, kNotANumber));
    return Launched(m, config->padded_rows, [&](DecodeGemmArgs args) {
      args.partials = partials.data;
      return LaunchPrefillGemm(*config, KindOf(source_), args, {});
    });
  }

  // Row `row` of a batch holds sample row `row` % 64.
  template <typename LaunchOne>
  std::vector<bf16> Launched(int m, int padded, LaunchOne launch) {
    const Case& c = GetParam();
    std::vector<bf16> act(size_t(c.k) * padded, kNan), addend;
    for (int row = 0; row < m; ++row) {
      for (int i = 0; i < c.k; ++i) {
        act[ActivationIndex(row, i, padded)] = ToBf16(act_[size_t(row % 64) * c.k + i]);
      }
      const auto sample = residual_.begin() + row % 64 * c.n;
      addend.insert(addend.end(), sample, sample + c.n);
    }
    const DeviceArray<uint8_t> packed(packed_);
    const DeviceArray<bf16> device_act(act), residual(addend);
    const DeviceArray<bf16> out(std::vector<bf16>(size_t(m) * Columns() + 64, kUnwritten));
    const KernelError error = launch(DecodeGemmArgs{.weight = packed.data,
                                                    .act = device_act.data,
                                                    .out = out.data,
                                                    .residual = residual.data,
                                                    .m = m,
                                                    .n = c.n,
                                                    .k = c.k,
                                                    .epilogue = c.epilogue});
    EXPECT_TRUE(error.ok()) << error.operation;
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    std::vector<bf16> values = out.Read();
    for (size_t i = size_t(m) * Columns(); i < values.size(); ++i) {
      EXPECT_EQ(values[i].bits, kUnwritten.bits) << "written past the end";
    }
    values.resize(size_t(m) * Columns());
    return values;
  }

  // What element (row, column) must be, and how far off fp32 and bf16 may put it.
  std::pair<double, double> Expected(int row, int column) const {
    const Case& c = GetParam();
    const auto sum = [&](int j) { return product_.sum[size_t(row) * c.n + j]; };
    const auto loss = [&](int j) {
      return product_.magnitude[size_t(row) * c.n + j] * c.k * std::ldexp(1.0, -23);
    };
    double value = sum(column), slack = loss(column);
    if (c.epilogue == GemmEpilogue::kAddResidual) {
      value += ToFloat(residual_[size_t(row) * c.n + column]);
    } else if (c.epilogue == GemmEpilogue::kSiluMul) {
      const double gate = sum(column), up = sum(column + c.n / 2);
      value = gate / (1 + std::exp(-gate)) * up;
      slack = 1.1 * (loss(column) * std::abs(up) + loss(column + c.n / 2) * std::abs(gate)) +
              1e-5 * std::abs(value);
    }
    return {value, slack + std::abs(value) * std::ldexp(1.0, -8) + 1e-6};
  }

  void ExpectReference(const std::vector<bf16>& out, int m) const {
    for (int row = 0; row < m; ++row) {
      for (int column = 0; column < Columns(); ++column) {
        const auto [value, slack] = Expected(row % 64, column);
        ASSERT_NEAR(ToFloat(out[size_t(row) * Columns() + column]), value, slack)
            << "row " << row << ", column " << column;
      }
    }
  }

  DeviceLimits limits_;
  std::vector<uint32_t> weight_;
  std::vector<bf16> scale_, residual_;
  std::vector<uint8_t> zero_, packed_;
  std::vector<float> act_;
  Int4Source source_;
  ReferenceProduct product_;
};

TEST_P(DecodeGemmTest, EveryBatchMatchesTheReferenceAndEveryFamilyGivesTheSameBits) {
  const std::vector<bf16> all = Run(64, GemmFamily::kAsync);
  ExpectReference(all, 64);
  for (const int m : {1, 2, 7, 8, 9, 16, 17, 32, 33, 64}) {
    for (const GemmFamily family : {GemmFamily::kAsync, GemmFamily::kBulk, GemmFamily::kWgmma}) {
      if (family == GemmFamily::kBulk && !limits_.has_bulk_copy()) continue;
      if (family == GemmFamily::kWgmma && (!limits_.has_wgmma() || m <= 8)) continue;
      const std::vector<bf16> some = Run(m, family);
      for (size_t i = 0; i < some.size(); ++i) {
        ASSERT_EQ(some[i].bits, all[i].bits) << "m " << m << ", element " << i;
      }
    }
  }
}

TEST_P(DecodeGemmTest, PrefillGivesTheBitsOfDecodeForAnyNumberOfRowsAndEitherTile) {
  if (!limits_.has_wgmma()) GTEST_SKIP() << "tiles need sm_90a";
  const std::vector<bf16> sample = Run(64, GemmFamily::kBulk);
  for (const int m : {1, 65, 128, 129, 300}) {
    for (const int tile_rows : {256, 128}) {
      const std::vector<bf16> out = RunPrefill(m, tile_rows);
      for (size_t i = 0; i < out.size(); ++i) {
        ASSERT_EQ(out[i].bits, sample[i % sample.size()].bits)
            << "m " << m << ", tiles of " << tile_rows << ", element " << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, DecodeGemmTest,
                         testing::Values(Case{256, 128, false, GemmEpilogue::kStore},
                                         Case{1, 384, false, GemmEpilogue::kStore},
                                         Case{300, 1024, true, GemmEpilogue::kStore},
                                         Case{1000, 2048, false, GemmEpilogue::kAddResidual},
                                         Case{624, 1280, true, GemmEpilogue::kSiluMul},
                                         Case{4096, 640, false, GemmEpilogue::kSiluMul},
                                         Case{300, 1024, false, GemmEpilogue::kStore, 64},
                                         Case{520, 640, true, GemmEpilogue::kStore, 64},
                                         Case{512, 384, false, GemmEpilogue::kSiluMul, 32},
                                         Case{700, 896, true, GemmEpilogue::kAddResidual, 32}));

}  // namespace
}  // namespace behemoth::kernels
