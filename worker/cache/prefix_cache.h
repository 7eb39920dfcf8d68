// Finds the KV blocks of a prefix that was computed before. Knows tokens and blocks, no requests.
//
// A full block is keyed by a chained 128-bit hash of (parent's key, its tokens); the salt and a
// secret per process start the chain. On a hit the tokens and the parent's key are compared too.
// Life of an entry: inserted (by a sequence that holds the block) -> idle (the cache is the only
// holder, in the LRU list) <-> in use -> evicted.
// Whoever holds a block of a chain holds its parents, and gives them back last block first: so the
// oldest idle entry is always a leaf, and eviction from the old end is LRU by leaf.
// Every operation is O(1) per block. Engine thread only. Never allocates after construction.
#pragma once

#include <absl/container/flat_hash_map.h>

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "worker/cache/block_pool.h"
#include "worker/ids.h"

namespace behemoth::worker {

struct PrefixKey {
  uint64_t high = 0;
  uint64_t low = 0;
  friend bool operator==(const PrefixKey&, const PrefixKey&) = default;
  template <typename H>
  friend H AbslHashValue(H state, const PrefixKey& key) {
    return H::combine(std::move(state), key.high, key.low);
  }
};

class PrefixCache {
 public:
  // `pool` outlives the cache. `secret` makes collisions unpredictable.
  PrefixCache(BlockPool* pool, int32_t tokens_per_block, uint64_t secret);

  // Where the chains of one salt begin. Different salts never meet.
  PrefixKey Root(std::string_view salt) const;

  // Appends to `blocks` the cached blocks of the longest known prefix of `tokens`, whole blocks
  // only, each held once more for the caller. Returns the key of the last one, else `root`.
  PrefixKey Match(PrefixKey root, std::span<const TokenId> tokens, std::vector<BlockId>* blocks);

  // The caller holds `block`, computed for `tokens` (one whole block) after `parent`. If the cache
  // already has these tokens, the caller's hold moves over to that block: `block` is what to hold
  // from now on. `chained` false: two different prefixes share a key; insert no children.
  struct Inserted {
    PrefixKey key;
    BlockId block;
    bool chained;
  };
  Inserted Insert(PrefixKey parent, std::span<const TokenId> tokens, BlockId block);

  // How all holders give blocks back; of a chain, the last block first.
  void Release(BlockId block);

  // Evicts idle entries, oldest first, until the pool has `count` free blocks. False = it cannot;
  // then nothing was evicted.
  bool MakeRoom(int32_t count);

  // Blocks that a caller could get: free ones and idle ones.
  int32_t available() const { return pool_->free() + idle_; }
  int32_t idle() const { return idle_; }
  int32_t entries() const { return static_cast<int32_t>(by_key_.size()); }
  // Changes when the set of cached blocks does: the XOR of all keys.
  uint64_t digest() const { return digest_; }

  // Recounts the entries and walks the LRU list. O(capacity).
  void Check() const;

 private:
  friend class PrefixCachePeer;  // a test that makes keys collide
  static constexpr int32_t kNone = -1;

  struct Entry {
    PrefixKey key;
    PrefixKey parent;
    bool cached = false;
    bool idle = false;
    int32_t older = kNone;
    int32_t newer = kNone;
  };

  PrefixKey ChildKey(PrefixKey parent, std::span<const TokenId> tokens) const;
  bool Holds(int32_t block, PrefixKey parent, std::span<const TokenId> tokens) const;
  void Hold(int32_t block);
  void EvictOldest();

  BlockPool* const pool_;
  const size_t tokens_per_block_;
  const uint64_t secret_;
  std::vector<Entry> entries_;   // [capacity], by block
  std::vector<TokenId> tokens_;  // [capacity, tokens_per_block]
  absl::flat_hash_map<PrefixKey, int32_t> by_key_;
  int32_t oldest_ = kNone;
  int32_t newest_ = kNone;
  int32_t idle_ = 0;
  uint64_t digest_ = 0;
};

}  // namespace behemoth::worker
