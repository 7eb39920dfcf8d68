#include "tokenizer_svc/encoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/tokenizer_svc/small_spec.h"

namespace behemoth::tokenizer {
namespace {

using testing::ElementsAre;
using Ids = std::vector<uint32_t>;

Segment Text(std::string_view text) { return {.kind = Segment::Kind::kText, .text = text}; }
Segment Marked(std::string_view text) { return {.kind = Segment::Kind::kMarked, .text = text}; }
Segment Control(uint32_t id) { return {.kind = Segment::Kind::kControl, .control_id = id}; }

Ids Encode(const TokenizerSpec& spec, const std::vector<Segment>& segments, bool special = false) {
  return Encoder(spec).Encode(segments, special);
}

TEST(EncoderTest, NoSegmentsAreNoIds) {
  EXPECT_THAT(Encode(SmallSpec(), {}), ElementsAre());
  EXPECT_THAT(Encode(SmallSpec(), {Text("")}), ElementsAre());
  EXPECT_THAT(Encode(SmallSpec(), {}, true), ElementsAre(kBos));
}

TEST(EncoderTest, TheMarkIsAddedAtTheVeryStartOnly) {
  EXPECT_THAT(Encode(SmallSpec(), {Text("b")}), ElementsAre(kMark, kB));
  EXPECT_THAT(Encode(SmallSpec(), {Text(" b")}), ElementsAre(kMark, kB));
  EXPECT_THAT(Encode(SmallSpec(), {Control(kX), Text("b")}), ElementsAre(kX, kB));
  EXPECT_THAT(Encode(SmallSpec(), {Text(""), Text("b")}), ElementsAre(kMark, kB));
  EXPECT_THAT(Encode(SmallSpec(), {Marked("[X]b")}), ElementsAre(kX, kB));
}

TEST(EncoderTest, BordersBetweenTextsAreNone) {
  EXPECT_EQ(Encode(SmallSpec(), {Text("a"), Text("b a"), Marked("b")}),
            Encode(SmallSpec(), {Text("ab ab")}));
}

TEST(EncoderTest, BordersMayCutACharacter) {
  EXPECT_EQ(Encode(SmallSpec(), {Text("\xC3"), Text("\xA9")}), Encode(SmallSpec(), {Text("é")}));
}

TEST(EncoderTest, UserTextYieldsNoControlToken) {
  for (const uint32_t id : Encode(SmallSpec(), {Text("<s>[X]</s><unk>")})) EXPECT_GE(id, kByte0);
  EXPECT_THAT(Encode(SmallSpec(), {Marked("["), Text("X"), Marked("]")}),
              ElementsAre(kMark, kByte0 + '[', kByte0 + 'X', kByte0 + ']'));
}

TEST(EncoderTest, WhatIsNoTokenAndNoUtf8BecomesBytes) {
  EXPECT_THAT(Encode(SmallSpec(), {Text("é\xFF\n")}),
              ElementsAre(kMark, kByte0 + 0xC3, kByte0 + 0xA9, kByte0 + 0xFF, kByte0 + '\n'));
}

TEST(EncoderTest, WithoutASpaceTokenASpaceIsTheBytesOfItsMark) {
  TokenizerSpec spec = SmallSpec();
  spec.tokens[kMark] = "q";
  spec.tokens[kMarkA] = "r";
  spec.tokens[kMarkMark] = "s";
  spec.merges.resize(1);
  spec.prefix = Prefix::kNever;
  EXPECT_THAT(Encode(spec, {Text(" ")}), ElementsAre(kByte0 + 0xE2, kByte0 + 0x96, kByte0 + 0x81));
}

TEST(EncoderTest, SpecialTokensAreAddedOnce) {
  TokenizerSpec spec = SmallSpec();
  spec.suffix_ids = {kEos};
  EXPECT_THAT(Encode(spec, {Text("b")}, true), ElementsAre(kBos, kMark, kB, kEos));
  EXPECT_THAT(Encode(spec, {Marked("<s>b")}, true), ElementsAre(kBos, kB, kEos));
  EXPECT_THAT(Encode(spec, {Control(kBos), Text("b")}, true), ElementsAre(kBos, kB, kEos));
}

TEST(EncoderTest, SplittingAtMarksKeepsWordsApart) {
  TokenizerSpec spec = SmallSpec();
  spec.split_at_marks = true;
  EXPECT_THAT(Encode(spec, {Text("ab  ab")}), ElementsAre(kMark, kAb, kMark, kMark, kAb));
  spec.split_at_marks = false;
  EXPECT_THAT(Encode(spec, {Text("ab  ab")}), ElementsAre(kMark, kAb, kMarkMark, kAb));
}

TEST(EncoderTest, IgnoringMergesTakesAWholeToken) {
  TokenizerSpec spec = SmallSpec();
  spec.merges = {{kA, kB, kAb}};
  EXPECT_THAT(Encode(spec, {Text("a")}), ElementsAre(kMark, kA));
  spec.ignore_merges = true;
  EXPECT_THAT(Encode(spec, {Text("a")}), ElementsAre(kMarkA));
}

TEST(EncoderTest, ALongRunOfOneCharacterIsJoinedInPairs) {
  const std::string spaces(200'000, ' ');
  EXPECT_EQ(Encode(SmallSpec(), {Text(spaces)}), Ids(100'000, kMarkMark));
}

}  // namespace
}  // namespace behemoth::tokenizer
