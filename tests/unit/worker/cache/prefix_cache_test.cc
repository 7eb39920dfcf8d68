#include "worker/cache/prefix_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace behemoth::worker {

// Reaches the stored tokens: a collision of 128-bit keys cannot be had otherwise.
class PrefixCachePeer {
 public:
  explicit PrefixCachePeer(PrefixCache* cache) : cache_(cache) {}
  void ChangeTokens(BlockId block, const std::vector<TokenId>& tokens) {
    const auto first = static_cast<int64_t>(block) * static_cast<int64_t>(tokens.size());
    std::copy(tokens.begin(), tokens.end(), cache_->tokens_.begin() + first);
  }

 private:
  PrefixCache* cache_;
};

namespace {

using ::testing::ElementsAre;
using Tokens = std::vector<TokenId>;
constexpr int32_t kTokens = 2;  // per block

class PrefixCacheTest : public ::testing::Test {
 protected:
  // Holds blocks for all whole blocks of `tokens`, cached, as a sequence that computed them would.
  std::vector<BlockId> Compute(std::string_view salt, const Tokens& tokens) {
    std::vector<BlockId> blocks;
    PrefixKey key = cache_.Match(cache_.Root(salt), tokens, &blocks);
    const std::span<const TokenId> all(tokens);
    for (size_t at = blocks.size() * kTokens; at + kTokens <= all.size(); at += kTokens) {
      EXPECT_TRUE(cache_.MakeRoom(1));
      const BlockId own = pool_.Reserve(1)->Take();
      const auto inserted = cache_.Insert(key, all.subspan(at, kTokens), own);
      EXPECT_TRUE(inserted.chained);
      key = inserted.key;
      blocks.push_back(inserted.block);
    }
    return blocks;
  }
  std::vector<BlockId> Match(std::string_view salt, const Tokens& tokens) {
    std::vector<BlockId> blocks;
    cache_.Match(cache_.Root(salt), tokens, &blocks);
    return blocks;
  }
  void Release(const std::vector<BlockId>& blocks) {
    for (auto block = blocks.rbegin(); block != blocks.rend(); ++block) cache_.Release(*block);
  }
  size_t CachedBlocks(std::string_view salt, const Tokens& tokens) {
    const std::vector<BlockId> blocks = Match(salt, tokens);
    Release(blocks);
    return blocks.size();
  }
  void TearDown() override {
    pool_.Check();
    cache_.Check();
  }

  BlockPool pool_{6};
  PrefixCache cache_{&pool_, kTokens, 42};
};

TEST_F(PrefixCacheTest, OnlyWholeBlocksAreFound) {
  const auto blocks = Compute("", {1, 2, 3, 4, 5});
  EXPECT_EQ(blocks.size(), 2u);
  EXPECT_EQ(Match("", {1}).size(), 0u);
  const auto first = Match("", {1, 2, 3});
  EXPECT_THAT(first, ElementsAre(blocks[0]));
  const auto both = Match("", {1, 2, 3, 4, 5, 6});
  EXPECT_THAT(both, ElementsAre(blocks[0], blocks[1]));
  EXPECT_EQ(pool_.refs(blocks[0]), 4);  // the cache, its computer, two hits
}

TEST_F(PrefixCacheTest, ADifferentTokenEndsTheMatch) {
  Release(Compute("", {1, 2, 3, 4}));
  EXPECT_EQ(CachedBlocks("", {1, 2, 3, 5}), 1u);
  EXPECT_EQ(CachedBlocks("", {2, 1, 3, 4}), 0u);
  // The same tokens after another parent are another prefix.
  EXPECT_EQ(CachedBlocks("", {3, 4}), 0u);
}

TEST_F(PrefixCacheTest, SaltsNeverMeet) {
  Release(Compute("alice", {1, 2}));
  EXPECT_EQ(CachedBlocks("alice", {1, 2}), 1u);
  EXPECT_EQ(CachedBlocks("bob", {1, 2}), 0u);
  EXPECT_EQ(CachedBlocks("", {1, 2}), 0u);
  EXPECT_EQ(CachedBlocks(std::string_view("alice\0", 6), {1, 2}), 0u);
}

TEST_F(PrefixCacheTest, TheSecretChangesEveryKey) {
  BlockPool pool(2);
  PrefixCache other(&pool, kTokens, 43);
  EXPECT_FALSE(cache_.Root("") == other.Root(""));
  EXPECT_FALSE(cache_.Root("alice") == other.Root("alice"));
}

TEST_F(PrefixCacheTest, ComputedTwiceIsKeptOnce) {
  const auto first = Compute("", {1, 2});
  // Somebody else computed the same without knowing: no match, a block of their own.
  const BlockId own = pool_.Reserve(1)->Take();
  const Tokens tokens = {1, 2};
  const auto inserted = cache_.Insert(cache_.Root(""), tokens, own);
  EXPECT_TRUE(inserted.chained);
  EXPECT_EQ(inserted.block, first[0]);
  EXPECT_EQ(pool_.refs(own), 0);
  EXPECT_EQ(cache_.entries(), 1);
  EXPECT_EQ(pool_.held(), 1);
  Release(first);
  Release({inserted.block});
  EXPECT_EQ(cache_.idle(), 1);
}

TEST_F(PrefixCacheTest, InsertingTheSameBlockAgainChangesNothing) {
  const auto blocks = Compute("", {1, 2});
  const Tokens tokens = {1, 2};
  const auto again = cache_.Insert(cache_.Root(""), tokens, blocks[0]);
  EXPECT_EQ(again.block, blocks[0]);
  EXPECT_EQ(pool_.refs(blocks[0]), 2);
  EXPECT_EQ(cache_.entries(), 1);
}

TEST_F(PrefixCacheTest, WhatNobodyHoldsIsStillThereAndCanBeHadBack) {
  Release(Compute("", {1, 2, 3, 4}));
  EXPECT_EQ(pool_.free(), 4);
  EXPECT_EQ(cache_.idle(), 2);
  EXPECT_EQ(cache_.available(), 6);
  EXPECT_TRUE(cache_.MakeRoom(6));
  EXPECT_EQ(pool_.free(), 6);
  EXPECT_EQ(cache_.entries(), 0);
  EXPECT_EQ(cache_.digest(), 0u);
}

TEST_F(PrefixCacheTest, TooMuchRoomEvictsNothing) {
  Release(Compute("", {1, 2, 3, 4}));
  const auto held = Compute("", {9, 9});
  EXPECT_FALSE(cache_.MakeRoom(6));
  EXPECT_EQ(cache_.idle(), 2);
  EXPECT_EQ(CachedBlocks("", {1, 2, 3, 4}), 2u);
  EXPECT_TRUE(cache_.MakeRoom(5));
  EXPECT_EQ(CachedBlocks("", {9, 9}), 1u);
  Release(held);
}

TEST_F(PrefixCacheTest, TheOldestLeafGoesFirst) {
  Release(Compute("", {1, 2, 3, 4}));  // older
  Release(Compute("", {5, 6, 7, 8}));
  ASSERT_TRUE(cache_.MakeRoom(3));
  EXPECT_EQ(CachedBlocks("", {1, 2, 3, 4}), 1u);  // the leaf is gone, its parent is not
  EXPECT_EQ(CachedBlocks("", {5, 6, 7, 8}), 2u);
}

TEST_F(PrefixCacheTest, AHitMakesAChainYoung) {
  Release(Compute("", {1, 2, 3, 4}));
  Release(Compute("", {5, 6, 7, 8}));
  EXPECT_EQ(CachedBlocks("", {1, 2, 3, 4}), 2u);
  ASSERT_TRUE(cache_.MakeRoom(4));
  EXPECT_EQ(CachedBlocks("", {1, 2, 3, 4}), 2u);
  EXPECT_EQ(CachedBlocks("", {5, 6, 7, 8}), 0u);
}

TEST_F(PrefixCacheTest, AParentOutlivesItsChildrenOnWhicheverBranch) {
  const auto left = Compute("", {1, 2, 3, 4});
  const auto right = Compute("", {1, 2, 5, 6});
  EXPECT_EQ(left[0], right[0]);
  Release(left);
  Release(right);
  ASSERT_TRUE(cache_.MakeRoom(4));  // 3 entries, one has to go
  EXPECT_EQ(CachedBlocks("", {1, 2, 3, 4}), 1u);
  EXPECT_EQ(CachedBlocks("", {1, 2, 5, 6}), 2u);
  ASSERT_TRUE(cache_.MakeRoom(5));
  EXPECT_EQ(CachedBlocks("", {1, 2, 5, 6}), 1u);
}

TEST_F(PrefixCacheTest, HeldEntriesAreNotEvicted) {
  const auto held = Compute("", {1, 2, 3, 4});
  Release(Compute("", {5, 6}));
  EXPECT_EQ(cache_.available(), 4);
  EXPECT_TRUE(cache_.MakeRoom(4));
  EXPECT_FALSE(cache_.MakeRoom(5));
  EXPECT_EQ(CachedBlocks("", {1, 2, 3, 4}), 2u);
  Release(held);
}

TEST_F(PrefixCacheTest, TheDigestFollowsTheSetOfBlocks) {
  EXPECT_EQ(cache_.digest(), 0u);
  Release(Compute("", {1, 2}));
  const uint64_t one = cache_.digest();
  EXPECT_NE(one, 0u);
  Release(Compute("", {3, 4}));
  EXPECT_NE(cache_.digest(), one);
  CachedBlocks("", {1, 2});         // a hit alone changes nothing but the order:
  ASSERT_TRUE(cache_.MakeRoom(5));  // {3, 4} goes
  EXPECT_EQ(cache_.digest(), one);
}

TEST_F(PrefixCacheTest, AKeyWithOtherTokensIsNoHitAndTakesNoChildren) {
  const auto held = Compute("", {1, 2});
  PrefixCachePeer(&cache_).ChangeTokens(held[0], {7, 8});  // now {7, 8} has the key of {1, 2}
  EXPECT_EQ(CachedBlocks("", {1, 2}), 0u);
  const BlockId own = pool_.Reserve(1)->Take();
  const Tokens tokens = {1, 2};
  const auto refused = cache_.Insert(cache_.Root(""), tokens, own);
  EXPECT_FALSE(refused.chained);
  EXPECT_EQ(refused.block, own);
  EXPECT_EQ(pool_.refs(own), 1);
  EXPECT_EQ(cache_.entries(), 1);
  Release({own});
  Release(held);
}

}  // namespace
}  // namespace behemoth::worker
