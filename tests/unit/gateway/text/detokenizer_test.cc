#include "gateway/text/detokenizer.h"

#include <gtest/gtest.h>

#include <vector>

namespace behemoth::gateway {
namespace {

const std::vector<std::string> kTokens = {"<s>",  " a", "b",    "\xE2", "\x82",     "\xAC",
                                          "[/X]", " ",  "\xF0", "",     "\xC3\xA9x"};
const std::vector<uint32_t> kControl = {0, 6, 999};

std::string Decode(const std::vector<uint32_t>& ids, const DetokenizerOptions& options = {}) {
  Detokenizer detokenizer(std::make_shared<TokenTable>(kTokens, kControl), options);
  std::string text;
  for (const uint32_t id : ids) detokenizer.Push(id, text);
  detokenizer.Flush(text);
  return text;
}

TEST(TokenTableTest, KnowsBytesAndControlOfEveryIdAndNothingOfOthers) {
  const TokenTable table(kTokens, kControl);
  EXPECT_EQ(table.size(), 11u);
  EXPECT_EQ(table.bytes(1), " a");
  EXPECT_EQ(table.bytes(9), "");
  EXPECT_EQ(table.bytes(10), "\xC3\xA9x");
  EXPECT_TRUE(table.is_control(0));
  EXPECT_FALSE(table.is_control(1));
  EXPECT_FALSE(table.contains(11));
  EXPECT_EQ(table.bytes(11), "");
  EXPECT_FALSE(table.is_control(999));
}

TEST(DetokenizerTest, ACharacterOverThreeTokensComesOutWithItsLast) {
  Detokenizer detokenizer(std::make_shared<TokenTable>(kTokens, kControl), {});
  std::string text;
  detokenizer.Push(3, text);
  detokenizer.Push(4, text);
  EXPECT_EQ(text, "");
  detokenizer.Push(5, text);
  EXPECT_EQ(text, "€");
}

TEST(DetokenizerTest, WhatNeverBecomesACharacterIsOneReplacementForEachByte) {
  const std::string fffd = "\xEF\xBF\xBD";
  EXPECT_EQ(Decode({3, 4}), fffd + fffd);
  EXPECT_EQ(Decode({3, 2}), fffd + "b");
  EXPECT_EQ(Decode({5, 8, 3, 4, 5}), fffd + fffd + "€");
  EXPECT_EQ(Decode({8, 10}), fffd + "éx");
}

TEST(DetokenizerTest, HiddenControlTokensDoNotBreakACharacterAndShownOnesDo) {
  EXPECT_EQ(Decode({0, 3, 6, 4, 5}), "€");
  const std::string fffd = "\xEF\xBF\xBD";
  EXPECT_EQ(Decode({0, 3, 6, 4}, {.skip_special_tokens = false}), "<s>" + fffd + "[/X]" + fffd);
}

TEST(DetokenizerTest, OnlyTheFirstSpaceOfAFreshTurnIsStripped) {
  EXPECT_EQ(Decode({1, 1}), " a a");
  EXPECT_EQ(Decode({1, 1}, {.strip_leading_space = true}), "a a");
  EXPECT_EQ(Decode({0, 9, 7, 1}, {.strip_leading_space = true}), " a");
  EXPECT_EQ(Decode({2, 1}, {.strip_leading_space = true}), "b a");
}

}  // namespace
}  // namespace behemoth::gateway
