// Whose turn it is. Waiting sequences are ordered by the virtual time of their fairness key, by
// priority within a key, by arrival within a priority.
//
// A key's virtual time is the work done for it: one per token prefilled, two per token sampled
// (the weights of "Fairness in Serving Large Language Models", arXiv:2401.00588). A key that
// comes back after a pause starts no earlier than the least served of the active ones, so pauses
// earn no credit, and no later than kRememberedWork after it, so that old debts are forgiven.
// Engine thread only.
#pragma once

#include <absl/container/flat_hash_map.h>

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace behemoth::worker {

struct Sequence;

struct WaitingEntry {
  int32_t priority;
  uint64_t arrival;
  int32_t index;  // within the request
  Sequence* sequence;
  bool operator<(const WaitingEntry& other) const {
    if (priority != other.priority) return priority > other.priority;
    if (arrival != other.arrival) return arrival < other.arrival;
    return index < other.index;
  }
};

// One fairness key's account.
struct FairShare {
  std::string key;
  int64_t virtual_time = 0;
  int32_t requests = 0;  // in flight
  std::set<WaitingEntry> waiting;
};

class FairQueue {
 public:
  static constexpr int64_t kPrefillWork = 1;
  static constexpr int64_t kSampleWork = 2;
  static constexpr int64_t kRememberedWork = 32768;
  // Idle keys that are remembered; a key's account is ~200 bytes.
  static constexpr size_t kMaxIdleShares = 4096;

  // A request of this key arrives; it leaves when it has ended. The pointer is good in between.
  FairShare* Join(const std::string& key);
  void Leave(FairShare* share);

  static void Charge(FairShare* share, int64_t work) { share->virtual_time += work; }

  void Push(FairShare* share, const WaitingEntry& entry);
  void Remove(FairShare* share, const WaitingEntry& entry);

  // The next in line: of the least served key (ties: by arrival); nullptr if nobody waits.
  Sequence* Front() const;
  int32_t size() const { return size_; }
  // Remembered ones, the idle included.
  size_t keys() const { return shares_.size(); }

 private:
  int64_t Floor() const;

  absl::flat_hash_map<std::string, std::unique_ptr<FairShare>> shares_;
  std::vector<FairShare*> active_;   // requests > 0
  std::vector<FairShare*> waiting_;  // !waiting.empty()
  int64_t idle_floor_ = 0;           // where the last active key stood
  int32_t size_ = 0;
};

}  // namespace behemoth::worker
