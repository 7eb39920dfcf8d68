// Texts that must not be shown, found in tokens: across them, inside characters, in any case.
#include "gateway/text/banned_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "gateway/text/case_fold.h"

namespace behemoth::gateway {
namespace {

std::string Folded(std::string_view text) {
  std::string out;
  AppendFolded(text, out);
  return out;
}

// Pairs of CaseFolding.txt (Unicode 15), statuses C and S; and what has none.
TEST(CaseFoldTest, CharactersThatDifferInCaseAloneFoldTogether) {
  const std::pair<std::string_view, std::string_view> same[] = {
      {"ABZ", "abz"}, {"ÉÀÖ", "éàö"}, {"Σ", "σ"}, {"ς", "σ"}, {"ſ", "s"}, {"K", "k"}, {"µ", "μ"},
      {"ẞ", "ß"},     {"ЖДЁ", "ждё"}, {"𐐀", "𐐨"}, {"Ǆ", "ǆ"}, {"ǅ", "ǆ"}, {"Ω", "ω"},
  };
  for (const auto& [a, b] : same) EXPECT_EQ(Folded(a), Folded(b)) << a;
  for (const std::string_view alone : {"İ", "1", "—", "漢字", "🙂", "ı"}) {
    EXPECT_EQ(Folded(alone), alone);
  }
  EXPECT_NE(Folded("İ"), Folded("i"));
  EXPECT_NE(Folded("ss"), Folded("ß"));
}

class BannedTextTest : public ::testing::Test {
 protected:
  BannedText Watch(std::vector<std::string> banned) {
    return {std::make_shared<BannedSet>(std::move(banned)), table_, {}};
  }
  const std::vector<std::string> tokens_ = {"<s>", "a", "b", "xa", "AB", "\xC3", "\xA9", "é", "x"};
  const std::vector<uint32_t> control_ = {0};
  const std::shared_ptr<const TokenTable> table_ = std::make_shared<TokenTable>(tokens_, control_);
};

TEST_F(BannedTextTest, NothingIsHeldThatCannotBecomeOne) {
  BannedText text = Watch({"ab"});
  EXPECT_FALSE(text.Push(8));
  EXPECT_TRUE(text.front_is_sure());
  text.Pop();
  EXPECT_FALSE(text.Push(1));
  EXPECT_FALSE(text.front_is_sure());
  EXPECT_FALSE(text.Push(8));  // "ax"
  EXPECT_TRUE(text.front_is_sure());
  text.Pop();
  EXPECT_TRUE(text.front_is_sure());
}

TEST_F(BannedTextTest, TheTokenInWhichItBeganIsNamed) {
  BannedText text = Watch({"no", "Ab"});
  EXPECT_FALSE(text.Push(8));
  text.Pop();
  EXPECT_FALSE(text.Push(3));  // "xa": it begins in its middle
  const auto match = text.Push(2);
  ASSERT_TRUE(match);
  EXPECT_EQ(match->token, 1u);
  EXPECT_EQ(match->text, 1u);
  text.Rewind(1);
  EXPECT_EQ(text.held(), 0u);
  EXPECT_FALSE(text.Push(2));
  EXPECT_TRUE(text.front_is_sure());
  text.Pop();
  EXPECT_TRUE(text.Push(4));  // the whole of it in one token
}

TEST_F(BannedTextTest, ACharacterOfTwoTokensBeganInTheFirst) {
  BannedText text = Watch({"É"});
  EXPECT_FALSE(text.Push(1));
  EXPECT_TRUE(text.front_is_sure());
  text.Pop();
  EXPECT_FALSE(text.Push(5));
  EXPECT_FALSE(text.front_is_sure()) << "half a character may be part of one";
  const auto match = text.Push(6);
  ASSERT_TRUE(match);
  EXPECT_EQ(match->token, 1u);
  text.Rewind(2);  // half of it is there again
  EXPECT_FALSE(text.front_is_sure());
  EXPECT_FALSE(text.Push(1));  // it never becomes a character
  EXPECT_TRUE(text.front_is_sure());
}

TEST_F(BannedTextTest, ControlTokensAreNoText) {
  BannedText text = Watch({"ab"});
  EXPECT_FALSE(text.Push(1));
  EXPECT_FALSE(text.Push(0));
  const auto match = text.Push(2);
  ASSERT_TRUE(match);
  EXPECT_EQ(match->token, 0u);
}

}  // namespace
}  // namespace behemoth::gateway
