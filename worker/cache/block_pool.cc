#include "worker/cache/block_pool.h"

#include <algorithm>

#include "proto/support/check.h"

namespace behemoth::worker {

Reservation::~Reservation() {
  if (pool_ != nullptr) pool_->reserved_ -= count_;
}

BlockId Reservation::Take() {
  BEHEMOTH_CHECK(count_ > 0, "more blocks taken than reserved");
  --count_;
  --pool_->reserved_;
  const BlockId block = pool_->free_.back();
  pool_->free_.pop_back();
  pool_->refs_[static_cast<size_t>(block)] = 1;
  ++pool_->held_;
  return block;
}

BlockPool::BlockPool(int32_t capacity) : refs_(static_cast<size_t>(capacity), 0) {
  free_.reserve(refs_.size());
  // Low numbers first: a lightly loaded pool touches a small part of the memory.
  for (int32_t block = capacity - 1; block >= 0; --block) free_.push_back(BlockId{block});
}

std::optional<Reservation> BlockPool::Reserve(int32_t count) {
  if (count < 0 || count > free()) return std::nullopt;
  reserved_ += count;
  return Reservation(this, count);
}

void BlockPool::Share(BlockId block) {
  int32_t& refs = refs_[static_cast<size_t>(block)];
  BEHEMOTH_CHECK(refs > 0, "a free block cannot be shared");
  ++refs;
}

void BlockPool::Release(BlockId block) {
  int32_t& refs = refs_[static_cast<size_t>(block)];
  BEHEMOTH_CHECK(refs > 0, "a block was released twice");
  if (--refs > 0) return;
  free_.push_back(block);
  --held_;
}

void BlockPool::Check() const {
  const auto held =
      std::count_if(refs_.begin(), refs_.end(), [](int32_t refs) { return refs > 0; });
  BEHEMOTH_CHECK(held == held_, "held blocks miscounted");
  BEHEMOTH_CHECK(free() + reserved_ + held_ == capacity(), "a block is lost or twice there");
  for (BlockId block : free_) BEHEMOTH_CHECK(refs(block) == 0, "a free block has holders");
}

}  // namespace behemoth::worker
