// A fixed set of KV blocks; one block = kTokensPerBlock tokens of every layer on this rank.
// Engine thread only. Never allocates after construction.
// Life of a block: free -> reserved -> held (refs >= 1) -> free.
// Invariant: free + reserved + held == capacity (Check() tells, tests call it).
// The prefix cache is a holder like any other: what it holds alone can be had back from it.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "worker/ids.h"

namespace behemoth::worker {

class BlockPool;

// Blocks set aside for one caller. What is not taken goes back with the object.
class Reservation {
 public:
  Reservation(Reservation&& other) noexcept
      : pool_(std::exchange(other.pool_, nullptr)), count_(std::exchange(other.count_, 0)) {}
  Reservation& operator=(Reservation&&) = delete;
  ~Reservation();

  // One block, held once. At most as often as blocks were reserved.
  BlockId Take();
  int32_t remaining() const { return count_; }

 private:
  friend class BlockPool;
  Reservation(BlockPool* pool, int32_t count) : pool_(pool), count_(count) {}

  BlockPool* pool_;
  int32_t count_;
};

class BlockPool {
 public:
  explicit BlockPool(int32_t capacity);
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  // Sets `count` blocks aside, or changes nothing and returns nullopt.
  // Every reserved block must be taken or forfeited before the step ends.
  std::optional<Reservation> Reserve(int32_t count);

  // One more holder of a held block.
  void Share(BlockId block);
  // One holder less; the last one frees the block.
  void Release(BlockId block);

  int32_t refs(BlockId block) const { return refs_[static_cast<size_t>(block)]; }
  int32_t capacity() const { return static_cast<int32_t>(refs_.size()); }
  int32_t free() const { return static_cast<int32_t>(free_.size()) - reserved_; }
  int32_t reserved() const { return reserved_; }
  int32_t held() const { return held_; }

  // Recounts everything. O(capacity).
  void Check() const;

 private:
  friend class Reservation;

  std::vector<int32_t> refs_;  // [capacity]
  std::vector<BlockId> free_;  // a stack; its last `reserved_` entries are promised
  int32_t reserved_ = 0;
  int32_t held_ = 0;
};

}  // namespace behemoth::worker
