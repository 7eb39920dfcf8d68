#include "gateway/chat/disguise.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace behemoth::gateway {
namespace {

using Segments = std::vector<PromptText::Segment>;
using Tokens = std::vector<std::pair<std::string, uint32_t>>;

const Tokens kTokens = {{"[INST]", 3}, {"[/INST]", 4}, {"</s>", 2}, {"[IN", 9}, {"NST", 8}};

// What a template prints that puts `user` between two tokens.
std::u32string Around(std::u32string_view user) {
  return U"[INST]" + std::u32string(user) + U"[/INST]";
}

TEST(DisguiseTest, TheTemplatesTokensAreIdsAndTheUsersAreText) {
  const Disguise disguise(kTokens, {});
  for (const char* user :
       {"hi", "[INST]", "[/INST]</s>", "NST]", "[[INST]]", "[IN", "", "né \\\""}) {
    const auto hidden = disguise.Hide(user, Disguise::Depth::kSpelling);
    const auto segments = disguise.Reveal(Around(hidden), std::string("[INST]") + user + "[/INST]");
    ASSERT_TRUE(segments) << user;
    const Segments expected =
        *user == '\0' ? Segments{3u, 4u} : Segments{3u, std::string(user), 4u};
    EXPECT_EQ(*segments, expected) << user;
  }
}

TEST(DisguiseTest, WholeTokensAreHiddenAlsoInsideOneAnother) {
  const Disguise disguise(kTokens, {});
  // "[INST]" holds "[IN" and "NST": hiding one must not free another.
  const std::string user = "say [INST] or NST";
  const auto hidden = disguise.Hide(user, Disguise::Depth::kTokens);
  const auto segments = disguise.Reveal(hidden, user);
  ASSERT_TRUE(segments);
  EXPECT_EQ(*segments, Segments{user});
  EXPECT_EQ(hidden.substr(0, 4), U"say ");
}

TEST(DisguiseTest, TheLongestTokenWins) {
  const Disguise disguise(kTokens, {});
  const auto segments = disguise.Reveal(U"[INST][IN", "[INST][IN");
  ASSERT_TRUE(segments);
  EXPECT_EQ(*segments, (Segments{3u, 9u}));
}

TEST(DisguiseTest, LengthSpacesAndQuotesStay) {
  const Disguise disguise(kTokens, {});
  const std::u32string plain = U" \n[I \"S\\T\u00A0";
  const auto hidden = disguise.Hide(" \n[I \"S\\T\u00A0", Disguise::Depth::kSpelling);
  ASSERT_EQ(hidden.size(), plain.size());
  for (const size_t kept : {0, 1, 4, 5, 7, 9}) EXPECT_EQ(hidden[kept], plain[kept]) << kept;
  for (const size_t gone : {2, 3, 6, 8}) EXPECT_NE(hidden[gone], plain[gone]) << gone;
}

TEST(DisguiseTest, WhatTheTemplateLooksForStaysUnlessItCouldBeAToken) {
  const std::vector<std::string> constants = {"</think>", "[INST] ", "INST", "x"};
  const Disguise disguise(kTokens, constants);
  EXPECT_EQ(disguise.Hide("</think>", Disguise::Depth::kSpelling), U"</think>");
  const auto hidden = disguise.Hide("[INST] INST", Disguise::Depth::kSpelling);
  EXPECT_EQ(hidden.find(U'I'), hidden.npos);
}

TEST(DisguiseTest, APrintThatIsNotTheTruthTellsNothing) {
  const Disguise disguise(kTokens, {});
  EXPECT_FALSE(disguise.Reveal(U"[INST]a", "[INST]b"));
  EXPECT_FALSE(disguise.Reveal(U"[INST]", "[INST]b"));
  EXPECT_FALSE(disguise.Reveal(U"[INST]ab", "[INST]a"));
  EXPECT_FALSE(disguise.Reveal(U"[INST]", ""));
  EXPECT_FALSE(disguise.Reveal(std::u32string(1, char32_t{0xDFFF}), "a"));  // stands for nothing
}

TEST(DisguiseTest, ATokenOfSpacesAloneStaysText) {
  const Tokens tokens = {{"\n\n", 5}, {"\"", 6}};
  const Disguise disguise(tokens, {});
  EXPECT_FALSE(disguise.HasControlToken("\n\n\""));
  const auto segments = disguise.Reveal(U"a\n\n\"", "a\n\n\"");
  ASSERT_TRUE(segments);
  EXPECT_EQ(*segments, Segments{std::string("a\n\n\"")});
}

TEST(DisguiseTest, Utf8ComesBackAsItWent) {
  const std::string text = "a\u00e9\u07ff\u0800\uffff\U00010000\U0010ffff";
  std::string back;
  for (const char32_t c : FromUtf8(text)) AppendUtf8(c, back);
  EXPECT_EQ(back, text);
}

}  // namespace
}  // namespace behemoth::gateway
