#include "worker/cache/prefix_cache.h"

#include <absl/container/flat_hash_set.h>

#include <algorithm>

#include "proto/support/check.h"

namespace behemoth::worker {
namespace {

__extension__ using Wide = unsigned __int128;

// Odd constants without structure: the fractional parts of sqrt(2), sqrt(3), sqrt(5), sqrt(7).
constexpr uint64_t kLane0 = 0x6a09e667f3bcc909;
constexpr uint64_t kLane1 = 0xbb67ae8584caa73b;
constexpr uint64_t kStep0 = 0x3c6ef372fe94f82b;
constexpr uint64_t kStep1 = 0xa54ff53a5f1d36f1;

// Folds the 128-bit product: every input bit reaches every output bit.
uint64_t Mix(uint64_t a, uint64_t b) {
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

struct Lanes {
  uint64_t high, low;
  void Add(uint64_t word) {
    high = Mix(high ^ word ^ kLane0, kStep0) + word;
    low = Mix(low + word + kLane1, kStep1) ^ high;
  }
};

}  // namespace

PrefixCache::PrefixCache(BlockPool* pool, int32_t tokens_per_block, uint64_t secret)
    : pool_(pool),
      tokens_per_block_(static_cast<size_t>(tokens_per_block)),
      secret_(secret),
      entries_(static_cast<size_t>(pool->capacity())),
      tokens_(entries_.size() * tokens_per_block_) {
  by_key_.reserve(entries_.size());
}

PrefixKey PrefixCache::Root(std::string_view salt) const {
  Lanes lanes{secret_, ~secret_};
  lanes.Add(salt.size());
  for (unsigned char byte : salt) lanes.Add(byte);
  return {lanes.high, lanes.low};
}

PrefixKey PrefixCache::ChildKey(PrefixKey parent, std::span<const TokenId> tokens) const {
  Lanes lanes{parent.high ^ secret_, parent.low};
  for (TokenId token : tokens) lanes.Add(static_cast<uint32_t>(token));
  return {lanes.high, lanes.low};
}

bool PrefixCache::Holds(int32_t block, PrefixKey parent, std::span<const TokenId> tokens) const {
  const size_t index = static_cast<size_t>(block);
  return entries_[index].parent == parent &&
         std::equal(tokens.begin(), tokens.end(), tokens_.begin() + index * tokens_per_block_);
}

PrefixKey PrefixCache::Match(PrefixKey root, std::span<const TokenId> tokens,
                             std::vector<BlockId>* blocks) {
  PrefixKey last = root;
  for (; tokens.size() >= tokens_per_block_; tokens = tokens.subspan(tokens_per_block_)) {
    const auto block_tokens = tokens.first(tokens_per_block_);
    const PrefixKey key = ChildKey(last, block_tokens);
    const auto found = by_key_.find(key);
    if (found == by_key_.end() || !Holds(found->second, last, block_tokens)) break;
    Hold(found->second);
    blocks->push_back(BlockId{found->second});
    last = key;
  }
  return last;
}

PrefixCache::Inserted PrefixCache::Insert(PrefixKey parent, std::span<const TokenId> tokens,
                                          BlockId block) {
  BEHEMOTH_CHECK(tokens.size() == tokens_per_block_, "only whole blocks are cached");
  const PrefixKey key = ChildKey(parent, tokens);
  const auto [found, is_new] = by_key_.try_emplace(key, static_cast<int32_t>(block));
  if (!is_new) {
    if (!Holds(found->second, parent, tokens)) return {key, block, false};
    if (BlockId{found->second} == block) return {key, block, true};
    const BlockId known{found->second};
    Hold(found->second);
    Release(block);
    return {key, known, true};
  }
  const size_t index = static_cast<size_t>(block);
  Entry& entry = entries_[index];
  BEHEMOTH_CHECK(!entry.cached, "a block is cached under one key only");
  entry = {.key = key, .parent = parent, .cached = true};
  std::copy(tokens.begin(), tokens.end(), tokens_.begin() + index * tokens_per_block_);
  pool_->Share(block);
  digest_ ^= key.low;
  return {key, block, true};
}

void PrefixCache::Hold(int32_t block) {
  Entry& entry = entries_[static_cast<size_t>(block)];
  pool_->Share(BlockId{block});
  if (!entry.idle) return;
  (entry.older == kNone ? oldest_ : entries_[entry.older].newer) = entry.newer;
  (entry.newer == kNone ? newest_ : entries_[entry.newer].older) = entry.older;
  entry.idle = false;
  entry.older = entry.newer = kNone;
  --idle_;
}

void PrefixCache::Release(BlockId block) {
  pool_->Release(block);
  const int32_t index = static_cast<int32_t>(block);
  Entry& entry = entries_[static_cast<size_t>(index)];
  if (!entry.cached || pool_->refs(block) != 1) return;
  entry.idle = true;
  entry.older = newest_;
  (newest_ == kNone ? oldest_ : entries_[newest_].newer) = index;
  newest_ = index;
  ++idle_;
}

bool PrefixCache::MakeRoom(int32_t count) {
  if (count > available()) return false;
  while (pool_->free() < count) EvictOldest();
  return true;
}

void PrefixCache::EvictOldest() {
  const int32_t index = oldest_;
  BEHEMOTH_CHECK(index != kNone, "nothing to evict");
  Entry& entry = entries_[static_cast<size_t>(index)];
  oldest_ = entry.newer;
  (oldest_ == kNone ? newest_ : entries_[oldest_].older) = kNone;
  --idle_;
  by_key_.erase(entry.key);
  digest_ ^= entry.key.low;
  entry = {};
  pool_->Release(BlockId{index});
}

void PrefixCache::Check() const {
  size_t cached = 0;
  int32_t idle = 0;
  uint64_t digest = 0;
  for (size_t index = 0; index < entries_.size(); ++index) {
    const Entry& entry = entries_[index];
    const int32_t refs = pool_->refs(BlockId{static_cast<int32_t>(index)});
    BEHEMOTH_CHECK(!entry.cached || refs > 0, "a cached block is free");
    BEHEMOTH_CHECK(entry.idle == (entry.cached && refs == 1), "idle means held by the cache alone");
    if (!entry.cached) continue;
    const auto found = by_key_.find(entry.key);
    BEHEMOTH_CHECK(found != by_key_.end() && found->second == static_cast<int32_t>(index),
                   "an entry cannot be found by its key");
    ++cached;
    idle += entry.idle;
    digest ^= entry.key.low;
  }
  BEHEMOTH_CHECK(cached == by_key_.size(), "a key without an entry");
  BEHEMOTH_CHECK(idle == idle_ && digest == digest_, "entries miscounted");
  absl::flat_hash_set<PrefixKey> younger;  // keys that may still come as parents
  int32_t walked = 0;
  for (int32_t index = newest_; index != kNone; index = entries_[index].older, ++walked) {
    const Entry& entry = entries_[static_cast<size_t>(index)];
    BEHEMOTH_CHECK(entry.idle && walked < idle_, "the LRU list is broken");
    const auto parent = by_key_.find(entry.parent);
    BEHEMOTH_CHECK(
        parent == by_key_.end() || !entries_[parent->second].idle || younger.contains(entry.parent),
        "a parent would be evicted before its child");
    younger.insert(entry.key);
  }
  BEHEMOTH_CHECK(walked == idle_, "an idle entry is not in the LRU list");
}

}  // namespace behemoth::worker
