#include "tokenizer_svc/bpe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>

#include "tests/unit/tokenizer_svc/small_spec.h"

namespace behemoth::tokenizer {
namespace {

using testing::ElementsAre;
using Ids = std::vector<uint32_t>;

Ids Encode(const TokenizerSpec& spec, const Ids& symbols) {
  Bpe::Scratch scratch;
  Ids ids;
  Bpe(spec).Encode(symbols, scratch, ids);
  return ids;
}

TEST(BpeTest, NothingBecomesNothing) { EXPECT_THAT(Encode(SmallSpec(), {}), ElementsAre()); }

TEST(BpeTest, TheLowerRankIsJoinedFirst) {
  EXPECT_THAT(Encode(SmallSpec(), {kMark, kA, kB}), ElementsAre(kMark, kAb));
  TokenizerSpec spec = SmallSpec();
  std::swap(spec.merges[0], spec.merges[1]);
  EXPECT_THAT(Encode(spec, {kMark, kA, kB}), ElementsAre(kMarkA, kB));
}

TEST(BpeTest, TiesAreJoinedFromTheLeft) {
  EXPECT_THAT(Encode(SmallSpec(), {kMark, kMark, kMark}), ElementsAre(kMarkMark, kMark));
}

TEST(BpeTest, ByteTokensAreNeverJoined) {
  EXPECT_THAT(Encode(SmallSpec(), {kByte0, kByte0 + 1, kA, kB}),
              ElementsAre(kByte0, kByte0 + 1, kAb));
}

TEST(BpeTest, OneScratchServesManyCalls) {
  const Bpe bpe(SmallSpec());
  Bpe::Scratch scratch;
  Ids ids;
  for (int i = 0; i < 3; ++i) bpe.Encode(Ids{kA, kB}, scratch, ids);
  EXPECT_THAT(ids, ElementsAre(kAb, kAb, kAb));
}

// The definition, word for word: find the neighbours of lowest rank, leftmost; join; again.
Ids EncodeByDefinition(const TokenizerSpec& spec, Ids ids) {
  std::map<std::pair<uint32_t, uint32_t>, size_t> ranks;
  for (size_t rank = 0; rank < spec.merges.size(); ++rank) {
    ranks[{spec.merges[rank].left, spec.merges[rank].right}] = rank;
  }
  for (;;) {
    size_t best = spec.merges.size(), place = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto found = ranks.find({ids[i], ids[i + 1]});
      if (found == ranks.end() || found->second >= best) continue;
      best = found->second;
      place = i;
    }
    if (best == spec.merges.size()) return ids;
    ids[place] = spec.merges[best].joined;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(place) + 1);
  }
}

// Random vocabularies over four letters; every token has one split, as training makes them.
TEST(BpeTest, EqualsTheDefinitionOnRandomVocabularies) {
  std::mt19937 random(2411);
  for (int round = 0; round < 300; ++round) {
    TokenizerSpec spec;
    spec.tokens = {"a", "b", "c", "d"};
    std::map<std::string, uint32_t> ids = {{"a", 0}, {"b", 1}, {"c", 2}, {"d", 3}};
    for (int i = 0; i < 12; ++i) {
      const uint32_t left = random() % spec.tokens.size(), right = random() % spec.tokens.size();
      const std::string joined = spec.tokens[left] + spec.tokens[right];
      if (!ids.emplace(joined, spec.tokens.size()).second) continue;
      spec.merges.push_back({left, right, static_cast<uint32_t>(spec.tokens.size())});
      spec.tokens.push_back(joined);
    }
    std::shuffle(spec.merges.begin(), spec.merges.end(), random);
    for (int text = 0; text < 20; ++text) {
      Ids symbols;
      for (size_t i = random() % 40; i > 0; --i) symbols.push_back(random() % 4);
      ASSERT_EQ(Encode(spec, symbols), EncodeByDefinition(spec, symbols)) << "round " << round;
    }
  }
}

}  // namespace
}  // namespace behemoth::tokenizer
