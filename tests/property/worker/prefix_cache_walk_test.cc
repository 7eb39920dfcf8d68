// Random walks over pool and cache against a list of what is cached that anyone can follow.
#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <list>

#include "tests/property/worker/walk_options.h"
#include "worker/cache/prefix_cache.h"

namespace behemoth::worker {
namespace {

constexpr int32_t kTokens = 2;  // per block
using Tokens = std::vector<TokenId>;

// One cached prefix: all its tokens, its holders. In the list in the order of their last release.
struct Known {
  std::string salt;
  Tokens tokens;
  int32_t holders = 0;
};

class NaiveCache {
 public:
  std::list<Known>::iterator Find(const std::string& salt, const Tokens& tokens) {
    return std::find_if(known_.begin(), known_.end(), [&](const Known& known) {
      return known.salt == salt && known.tokens == tokens;
    });
  }
  bool Has(const std::string& salt, const Tokens& tokens) {
    return Find(salt, tokens) != known_.end();
  }
  void Hold(const std::string& salt, const Tokens& tokens) {
    const auto found = Find(salt, tokens);
    if (found == known_.end()) {
      known_.push_back({salt, tokens, 1});
    } else {
      ++found->holders;
    }
  }
  void Release(const std::string& salt, const Tokens& tokens) {
    const auto found = Find(salt, tokens);
    if (--found->holders == 0) known_.splice(known_.end(), known_, found);
  }
  void EvictOldest() {
    known_.erase(std::find_if(known_.begin(), known_.end(),
                              [](const Known& known) { return known.holders == 0; }));
  }
  int32_t size() const { return static_cast<int32_t>(known_.size()); }
  int32_t idle() const {
    return static_cast<int32_t>(std::count_if(
        known_.begin(), known_.end(), [](const Known& known) { return known.holders == 0; }));
  }

 private:
  std::list<Known> known_;
};

struct Chain {
  std::string salt;
  Tokens tokens;  // whole blocks
  std::vector<BlockId> blocks;
  PrefixKey key;
};

class CacheWalk {
 public:
  explicit CacheWalk(uint64_t seed)
      : dice_(seed), pool_(dice_.Between(2, 12)), cache_(&pool_, kTokens, seed) {}

  std::string Go(int32_t steps) {
    for (int32_t step = 0; step < steps && wrong_.empty(); ++step) {
      const int32_t roll = dice_.Between(0, 9);
      if (roll < 3) Open();
      if (roll >= 3 && roll < 7) Extend();
      if (roll >= 7) Close();
      Compare();
      if (step % 16 == 0) Check();
    }
    while (!chains_.empty()) Close();
    Check();
    Expect(cache_.available() == pool_.capacity(), "a block leaked");
    return wrong_;
  }

 private:
  Tokens Prefix(const Tokens& tokens, size_t blocks) const {
    return {tokens.begin(), tokens.begin() + static_cast<int64_t>(blocks * kTokens)};
  }

  void Open() {
    Chain chain{.salt = dice_.OneIn(3) ? "salt" : ""};
    Tokens wanted;
    // An odd number now and then: what is not a whole block must not be found.
    for (int32_t i = dice_.Between(0, 9); i > 0; --i) wanted.push_back(dice_.Between(0, 1));
    size_t known = 0;
    while ((known + 1) * kTokens <= wanted.size() &&
           naive_.Has(chain.salt, Prefix(wanted, known + 1))) {
      ++known;
    }
    chain.key = cache_.Match(cache_.Root(chain.salt), wanted, &chain.blocks);
    Expect(chain.blocks.size() == known, "another number of blocks was found");
    chain.tokens = Prefix(wanted, known);
    for (size_t i = 1; i <= known; ++i) naive_.Hold(chain.salt, Prefix(wanted, i));
    chains_.push_back(std::move(chain));
  }

  void Extend() {
    if (chains_.empty()) return;
    Chain& chain = chains_[Roll()];
    const bool fits = naive_.size() - naive_.idle() < pool_.capacity();
    Expect(cache_.MakeRoom(1) == fits, "room where there is none, or none where there is");
    if (!fits) return;
    while (naive_.size() >= pool_.capacity()) naive_.EvictOldest();
    const BlockId own = pool_.Reserve(1)->Take();
    for (int32_t i = 0; i < kTokens; ++i) chain.tokens.push_back(dice_.Between(0, 1));
    const auto all = std::span<const TokenId>(chain.tokens);
    const bool known = naive_.Has(chain.salt, chain.tokens);
    const auto inserted = cache_.Insert(chain.key, all.last(kTokens), own);
    Expect(inserted.chained, "keys of 128 bits do not meet");
    Expect((inserted.block != own) == known, "kept twice");
    naive_.Hold(chain.salt, chain.tokens);
    chain.key = inserted.key;
    chain.blocks.push_back(inserted.block);
  }

  void Close() {
    if (chains_.empty()) return;
    const size_t index = Roll();
    Chain& chain = chains_[index];
    for (size_t i = chain.blocks.size(); i > 0; --i) {
      cache_.Release(chain.blocks[i - 1]);
      naive_.Release(chain.salt, Prefix(chain.tokens, i));
    }
    chains_.erase(chains_.begin() + static_cast<int64_t>(index));
  }

  size_t Roll() {
    return static_cast<size_t>(dice_.Between(0, static_cast<int32_t>(chains_.size()) - 1));
  }

  void Compare() {
    Expect(cache_.entries() == naive_.size(), "another number of entries");
    Expect(cache_.idle() == naive_.idle(), "another number of idle entries");
    Expect(pool_.held() == naive_.size(), "another number of blocks is held");
    // The same chain is the same block, other chains are other blocks.
    for (const Chain& a : chains_) {
      for (const Chain& b : chains_) {
        if (a.blocks.empty() || b.blocks.empty()) continue;
        const bool same = a.salt == b.salt && a.tokens == b.tokens;
        Expect((a.blocks.back() == b.blocks.back()) == same, "blocks and tokens disagree");
      }
    }
  }

  void Check() {
    pool_.Check();
    cache_.Check();
  }

  void Expect(bool condition, const std::string& what) {
    if (!condition && wrong_.empty()) wrong_ = what;
  }

  Dice dice_;
  BlockPool pool_;
  PrefixCache cache_;
  NaiveCache naive_;
  std::vector<Chain> chains_;
  std::string wrong_;
};

TEST(PrefixCacheWalkTest, FindsAndEvictsWhatAListWould) {
  const int32_t walks = Options().walks > 0 ? Options().walks : 100;
  const int32_t steps = Options().steps > 0 ? Options().steps : 2000;
  for (int32_t i = 0; i < walks; ++i) {
    const uint64_t seed = Options().seed + static_cast<uint64_t>(i);
    const WalkScope scope(seed, steps);
    ASSERT_EQ(CacheWalk(seed).Go(steps), "") << scope.replay();
  }
}

}  // namespace
}  // namespace behemoth::worker
