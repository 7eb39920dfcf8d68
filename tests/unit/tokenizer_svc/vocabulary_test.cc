#include "tokenizer_svc/vocabulary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/tokenizer_svc/small_spec.h"

namespace behemoth::tokenizer {
namespace {

using testing::ElementsAre;

TEST(VocabularyTest, EveryIdSaysItsBytes) {
  const Vocabulary vocabulary(SmallSpec(), {});
  ASSERT_EQ(vocabulary.size(), 266u);
  EXPECT_THAT(std::vector(vocabulary.token_bytes().begin(), vocabulary.token_bytes().begin() + 4),
              ElementsAre("<unk>", "<s>", "</s>", "[X]"));
  for (int byte = 0; byte < 256; ++byte) {
    EXPECT_EQ(vocabulary.token_bytes()[kByte0 + byte], std::string(1, static_cast<char>(byte)));
  }
  EXPECT_THAT(std::vector(vocabulary.token_bytes().begin() + 260, vocabulary.token_bytes().end()),
              ElementsAre(" ", "a", "b", "ab", " a", "  "));
}

TEST(VocabularyTest, AMarkWithoutSpacesToMarksStaysAMark) {
  TokenizerSpec spec = SmallSpec();
  spec.spaces_to_marks = false;
  EXPECT_EQ(Vocabulary(spec, {}).token_bytes()[kMarkA], "▁a");
}

TEST(VocabularyTest, ByteNamesWithoutByteFallbackAreText) {
  TokenizerSpec spec = SmallSpec();
  spec.byte_fallback = false;
  EXPECT_EQ(Vocabulary(spec, {}).token_bytes()[kByte0 + 10], "<0x0A>");
}

TEST(VocabularyTest, ControlIdsAreTheSpecialOnesSorted) {
  TokenizerSpec spec = SmallSpec();
  std::reverse(spec.added.begin(), spec.added.end());
  spec.added.push_back({.id = kAb, .content = "ab"});  // user-defined: text
  const Vocabulary vocabulary(spec, {});
  EXPECT_THAT(vocabulary.control_ids(), ElementsAre(kUnk, kBos, kEos, kX));
  EXPECT_TRUE(vocabulary.IsControl(kX));
  for (const uint32_t id : {kAb, kByte0, 266u, 1u << 31, ~0u}) {
    EXPECT_FALSE(vocabulary.IsControl(id)) << id;
  }
}

}  // namespace
}  // namespace behemoth::tokenizer
