// The CPU's inner loops against the plainest form of the same sum, and 16-bit floats against the
// compiler's own.
#include "worker/device/cpu/vector_loops.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "worker/checkpoint/element.h"

namespace behemoth::worker {
namespace {

__extension__ using Half = _Float16;

bool SameBits(float a, float b) { return std::memcmp(&a, &b, sizeof(a)) == 0; }

// Any finite float whose size is up to 2^20, with every exponent as likely.
float AnyFloat(std::mt19937& random) {
  const float mantissa = 1 + static_cast<float>(random() % (1 << 23)) * 0x1p-23f;
  const float value = std::ldexp(mantissa, static_cast<int>(random() % 52) - 32);
  return random() % 2 == 0 ? value : -value;
}

TEST(ElementTest, EveryHalfIsTheCompilers) {
  for (uint32_t pattern = 0; pattern < 65536; ++pattern) {
    const uint16_t bits = static_cast<uint16_t>(pattern);
    Half half;
    std::memcpy(&half, &bits, sizeof(half));
    const float expected = static_cast<float>(half), actual = FloatFromFloat16(bits);
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(actual)) << pattern;
    } else {
      EXPECT_TRUE(SameBits(actual, expected)) << pattern;
    }
  }
}

TEST(ElementTest, RoundingIsToTheNearestEven) {
  std::mt19937 random(1);
  for (int i = 0; i < 200000; ++i) {
    const float value = AnyFloat(random);
    EXPECT_TRUE(SameBits(RoundToFloat16(value), static_cast<float>(static_cast<Half>(value))))
        << value;
    // bf16: the nearest of the two neighbours, the even one when halfway.
    const float rounded = FloatFromBfloat16(Bfloat16FromFloat(value));
    EXPECT_LE(std::fabs(rounded - value), std::ldexp(std::fabs(value), -8));
  }
  EXPECT_EQ(Bfloat16FromFloat(1 + 0x1p-8f), 0x3f80);      // halfway, down to even
  EXPECT_EQ(Bfloat16FromFloat(1 + 3 * 0x1p-8f), 0x3f82);  // halfway, up to even
  EXPECT_TRUE(std::isnan(FloatFromBfloat16(Bfloat16FromFloat(std::nanf("")))));
  EXPECT_EQ(RoundToFloat16(65519.0f), 65504.0f);
  EXPECT_EQ(RoundToFloat16(65520.0f), std::numeric_limits<float>::infinity());
}

TEST(DequantizeTest, ProductsAreRoundedToTheFormatsType) {
  std::mt19937 random(2);
  constexpr int32_t kCols = 64, kGroup = 16;
  for (int round = 0; round < 2000; ++round) {
    std::vector<uint32_t> words(kCols / 8);
    for (uint32_t& word : words) word = random();
    std::vector<float> scales(kCols / kGroup);
    for (float& scale : scales) scale = RoundToFloat16(AnyFloat(random) * 0x1p-6f);
    std::vector<uint8_t> zeros(kCols / kGroup);
    for (uint8_t& zero : zeros) zero = random() % 16;
    for (const ElementType type :
         {ElementType::kFloat32, ElementType::kBfloat16, ElementType::kFloat16}) {
      std::vector<float> out(kCols + 1, -7.0f);
      const bool symmetric = round % 2 == 0;
      cpu::Dequantize({.words = words.data(),
                       .scales = scales.data(),
                       .zeros = symmetric ? nullptr : zeros.data(),
                       .cols = kCols,
                       .group_size = kGroup,
                       .product = type},
                      out.data());
      for (int32_t c = 0; c < kCols; ++c) {
        const int nibble = static_cast<int>((words[c / 8] >> (4 * (c % 8))) & 15);
        const int zero = symmetric ? 8 : zeros[c / kGroup];
        const float exact = static_cast<float>(nibble - zero) * scales[c / kGroup];
        const float expected = type == ElementType::kFloat32 ? exact
                               : type == ElementType::kFloat16
                                   ? static_cast<float>(static_cast<Half>(exact))
                                   : FloatFromBfloat16(Bfloat16FromFloat(exact));
        ASSERT_TRUE(SameBits(out[c], expected)) << exact << " as " << static_cast<int>(type);
      }
      EXPECT_EQ(out[kCols], -7.0f);
    }
  }
}

// |error| <= (levels of the tree + terms per lane) eps sum|a b|: at most k eps of it.
TEST(DotsTest, SumsEveryLengthAndTileWithinTheirRounding) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  for (const int32_t cols : {1, 7, 31, 32, 33, 64, 100, 512, 1000}) {
    for (const int32_t tokens : {1, 2, 3, 4, 5, 8, 9}) {
      const int32_t stride = cols + 3;
      const float nan = std::nanf("");
      std::vector<float> weight(cols + 64, nan), x(static_cast<size_t>(tokens) * stride + 64, nan);
      for (int32_t c = 0; c < cols; ++c) weight[c] = normal(random);
      for (int32_t t = 0; t < tokens; ++t) {
        for (int32_t c = 0; c < cols; ++c) x[t * stride + c] = normal(random);
      }
      std::vector<float> y(2 * static_cast<size_t>(tokens), 1.0f);
      cpu::Dots({.weight = weight.data(),
                 .cols = cols,
                 .x = x.data(),
                 .x_stride = stride,
                 .tokens = tokens,
                 .y = y.data(),
                 .y_stride = 2,
                 .accumulate = true});
      for (int32_t t = 0; t < tokens; ++t) {
        double sum = 1, size = 1;
        for (int32_t c = 0; c < cols; ++c) {
          const double product = static_cast<double>(weight[c]) * x[t * stride + c];
          sum += product;
          size += std::fabs(product);
        }
        EXPECT_NEAR(y[2 * t], sum, (cols / 32 + 7) * 0x1p-24 * size) << cols << " x " << tokens;
        EXPECT_EQ(y[2 * t + 1], 1.0f);
        EXPECT_TRUE(SameBits(y[2 * t], 1 + cpu::Dot(x.data() + t * stride, weight.data(), cols)));
      }
    }
  }
}

}  // namespace
}  // namespace behemoth::worker
