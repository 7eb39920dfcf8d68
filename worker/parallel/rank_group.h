// One rank's end of a tensor-parallel group: how the ranks of one model add up and put together
// what each of them computed a part of.
//
// Every rank makes the same calls in the same order. On a device a call enqueues on the stream and
// returns; on the host (stream null) it returns when it is done. Results are the same bits on every
// rank and in every run, and an element's bits do not depend on what else is in the call; where an
// implementation cannot promise that, its own header says so.
//
// Thread: the rank's own, one at a time; Abort from any.
#pragma once

#include <absl/status/status.h>

#include <cstddef>
#include <cstdint>

#include "worker/parallel/peer_table.h"

struct CUstream_st;

namespace behemoth::worker {

enum class SumElement { kFloat, kBfloat16 };

class RankGroup {
 public:
  RankGroup(int32_t rank, int32_t size) : rank_(rank), size_(size) {}
  virtual ~RankGroup() = default;
  RankGroup(const RankGroup&) = delete;
  RankGroup& operator=(const RankGroup&) = delete;

  int32_t rank() const { return rank_; }  // 0 .. size - 1
  int32_t size() const { return size_; }  // > 1

  // values[i] = the sum over the ranks of values[i]. FAILED_PRECONDITION where there are peers(),
  // as AllGather.
  virtual absl::Status AllReduce(void* values, size_t count, SumElement element,
                                 CUstream_st* stream) = 0;
  // all[r * bytes + i] = byte i of rank r's `part`.
  virtual absl::Status AllGather(const void* part, size_t bytes, void* all,
                                 CUstream_st* stream) = 0;
  // Ends the group: calls that wait for a rank return, and every later one fails, with `why`.
  virtual void Abort(const absl::Status& why) = 0;
  // Not null: kernels sum and gather out of the other ranks' memory themselves, which is here. Each
  // such kernel's launch is announced: the group's end, if it has ended.
  virtual PeerTable* peers() { return nullptr; }
  virtual absl::Status AnnounceOnPeers() { return absl::OkStatus(); }

 private:
  const int32_t rank_, size_;
};

}  // namespace behemoth::worker
