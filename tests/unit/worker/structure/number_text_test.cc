#include "worker/structure/number_text.h"

#include <gtest/gtest.h>

namespace behemoth::worker {
namespace {

std::string Text(const NumberRules& rules) {
  auto text = NumberText(rules);
  return text.ok() ? *std::move(text) : std::string(text.status().message());
}

TEST(NumberTextTest, DecimalsAreWhatTheirAuthorWrote) {
  const auto expect = [](double value, int64_t digits, int exponent) {
    const Decimal decimal = DecimalOf(value);
    EXPECT_EQ(decimal.digits, digits) << value;
    EXPECT_EQ(decimal.exponent, exponent) << value;
  };
  expect(0, 0, 0);
  expect(0.1, 1, -1);
  expect(-2.25, -225, -2);
  expect(1e300, 1, 300);
  expect(5e-324, 5, -324);
  expect(1.7976931348623157e308, 17976931348623157, 292);
}

TEST(NumberTextTest, IntegersWithinTheirBounds) {
  EXPECT_EQ(Text({.integer = true, .minimum = Decimal{0, 0}, .maximum = Decimal{9, 0}}), "[0-9]");
  EXPECT_EQ(Text({.integer = true, .minimum = Decimal{7, 0}, .maximum = Decimal{7, 0}}), "\"7\"");
  EXPECT_EQ(Text({.integer = true, .minimum = Decimal{18, 0}, .maximum = Decimal{120, 0}}),
            R"("1" [8-9] | [2-9] [0-9] | "1" [0-1] [0-9] | "120")");
  EXPECT_EQ(Text({.integer = true,
                  .exclusive_minimum = Decimal{-3, 0},
                  .exclusive_maximum = Decimal{15, -1}}),
            R"("-" [1-2] | [0-1])");
}

TEST(NumberTextTest, DecimalsWithinTheirBounds) {
  EXPECT_EQ(Text({.minimum = Decimal{0, 0}, .maximum = Decimal{1, 0}}),
            R"("0" ("." [0-9]{1,6})? | "1" ("." "0"{1,6})?)");
  EXPECT_EQ(Text({.minimum = Decimal{25, -2}, .exclusive_maximum = Decimal{3, -1}}),
            R"("0.2" [5-9] [0-9]{0,4})");
}

TEST(NumberTextTest, ABoundMayHaveMoreDigitsThanWhatIsWritten) {
  // 15 of them: one in front of the point, 14 behind.
  EXPECT_EQ(Text({.minimum = Decimal{19999999999999999, -16}, .maximum = Decimal{2, 0}}),
            R"("2" ("." "0"{1,14})?)");
}

TEST(NumberTextTest, Multiples) {
  EXPECT_EQ(
      Text({.minimum = Decimal{-1, 0}, .maximum = Decimal{1, 0}, .multiple_of = Decimal{5, -1}}),
      R"("-1" | "-0.5" | "0" | "0.5" | "1")");
  EXPECT_EQ(Text({.integer = true,
                  .minimum = Decimal{0, 0},
                  .maximum = Decimal{400, 0},
                  .multiple_of = Decimal{1, 2}}),
            R"("0" | [1-4] "00")");
  EXPECT_EQ(Text({.integer = true,
                  .minimum = Decimal{0, 0},
                  .maximum = Decimal{7, 0},
                  .multiple_of = Decimal{15, -1}}),
            R"("0" | "3" | "6")");
  EXPECT_EQ(
      Text({.minimum = Decimal{0, 0}, .maximum = Decimal{9, 0}, .multiple_of = Decimal{1, -2}}),
      R"([0-8] ("." [0-9]{1,2})? | "9" ("." "0"{1,2})?)");
}

TEST(NumberTextTest, WhatNothingFitsIsRefused) {
  const auto expect = [](const NumberRules& rules, const char* why) {
    EXPECT_NE(Text(rules).find(why), std::string::npos) << Text(rules);
  };
  expect({.integer = true, .minimum = Decimal{1, -1}, .maximum = Decimal{9, -1}}, "no number fits");
  expect({.minimum = Decimal{1, 0}, .exclusive_maximum = Decimal{1, 0}}, "no number fits");
  expect({.minimum = Decimal{1, 300}}, "no number fits");
  expect({.multiple_of = Decimal{0, 0}}, "multipleOf");
  expect({.multiple_of = Decimal{-2, 0}}, "multipleOf");
  expect({.multiple_of = Decimal{3, 0}}, "multipleOf");
  expect({.multiple_of = Decimal{1, -20}}, "multipleOf");
}

}  // namespace
}  // namespace behemoth::worker
