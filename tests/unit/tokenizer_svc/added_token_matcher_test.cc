#include "tokenizer_svc/added_token_matcher.h"

#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

#include <string>

namespace behemoth::tokenizer {
namespace {

// "<id>" for a token, the text itself for text, joined by "|".
std::string Split(const std::vector<AddedToken>& tokens, std::string_view text,
                  std::vector<Span> trusted) {
  std::string out;
  AddedTokenMatcher(tokens, false)
      .Split(text, {0, text.size()}, trusted, [&](std::optional<uint32_t> id, Span span) {
        const auto piece = text.substr(span.begin, span.end - span.begin);
        absl::StrAppend(&out, out.empty() ? "" : "|",
                        id ? absl::StrCat("<", *id, ">") : std::string(piece));
      });
  return out;
}

std::string SplitTrusted(const std::vector<AddedToken>& tokens, std::string_view text) {
  return Split(tokens, text, {{0, text.size()}});
}

const std::vector<AddedToken> kTokens = {
    {.id = 1, .content = "[X]", .special = true},
    {.id = 2, .content = "[X]]", .special = true},
    {.id = 3, .content = "[REF]"},
};

TEST(AddedTokenMatcherTest, TextWithoutTokensIsOnePiece) {
  EXPECT_EQ(SplitTrusted(kTokens, "[ X ] [Y"), "[ X ] [Y");
  EXPECT_EQ(SplitTrusted(kTokens, ""), "");
}

TEST(AddedTokenMatcherTest, TheLongestAtTheLeftmostPlaceIsTaken) {
  EXPECT_EQ(SplitTrusted(kTokens, "a[X]]b[X][X]"), "a|<2>|b|<1>|<1>");
  EXPECT_EQ(SplitTrusted(kTokens, "[X[X]"), "[X|<1>");
}

TEST(AddedTokenMatcherTest, ControlTokensCountInTrustedRangesOnly) {
  EXPECT_EQ(Split(kTokens, "[X][REF][X]", {}), "[X]|<3>|[X]");
  EXPECT_EQ(Split(kTokens, "[X][X][X]", {{3, 6}}), "[X]|<1>|[X]");
}

TEST(AddedTokenMatcherTest, AControlTokenAcrossATrustedBorderIsText) {
  EXPECT_EQ(Split(kTokens, "[X]", {{0, 2}}), "[X]");
  EXPECT_EQ(Split(kTokens, "[X]", {{1, 3}}), "[X]");
  EXPECT_EQ(Split(kTokens, "[X]", {{0, 1}, {2, 3}}), "[X]");
  EXPECT_EQ(Split(kTokens, "[X]]", {{0, 3}}), "<1>|]");  // the longer one would reach out
}

TEST(AddedTokenMatcherTest, StrippingTakesWhiteSpaceButNoToken) {
  const std::vector<AddedToken> tokens = {
      {.id = 1, .content = "|", .strip_left = true, .strip_right = true},
      {.id = 2, .content = "#"},
  };
  EXPECT_EQ(SplitTrusted(tokens, "a \n| \tb"), "a|<1>|b");
  EXPECT_EQ(SplitTrusted(tokens, "#  |  |  #"), "<2>|<1>|<1>|<2>");
  EXPECT_EQ(SplitTrusted(tokens, "\xC2\xA0|\xE3\x80\x80"), "<1>");  // U+00A0, U+3000
  EXPECT_EQ(SplitTrusted(tokens, "\x80|\xFF"), "\x80|<1>|\xFF");    // no UTF-8, no white space
}

TEST(AddedTokenMatcherTest, EachPassKnowsItsOwnTokens) {
  const std::vector<AddedToken> tokens = {{.id = 1, .content = "x", .normalized = true}};
  EXPECT_EQ(SplitTrusted(tokens, "x"), "x");
}

}  // namespace
}  // namespace behemoth::tokenizer
