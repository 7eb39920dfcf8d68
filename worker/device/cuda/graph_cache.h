// Recorded steps: for each width of decode step a CUDA graph, captured the first time and launched
// from then on; and two for steps that wait for masks in front of their samples, up to there and
// from there on. Warm-up runs every width in both ways, so that nothing is captured while users
// wait.
//
// Thread: as the backend.
#pragma once

#include <absl/functional/function_ref.h>
#include <absl/status/status.h>

#include <cstdint>
#include <map>

struct CUgraphExec_st;
struct CUstream_st;

namespace behemoth::worker::cuda {

class GraphCache {
 public:
  GraphCache() = default;
  GraphCache(const GraphCache&) = delete;
  GraphCache& operator=(const GraphCache&) = delete;
  ~GraphCache();

  // Enqueues the graph of `width` on `stream`; records it first, from what `enqueue` puts on the
  // stream, if there is none.
  absl::Status Run(int32_t width, CUstream_st* stream, absl::FunctionRef<void()> enqueue);
  // The same in two graphs with what `between` enqueues between them; `enqueue` calls Cut once.
  absl::Status RunCut(int32_t width, CUstream_st* stream, absl::FunctionRef<void()> enqueue,
                      absl::FunctionRef<void()> between);
  // While RunCut records: what follows belongs to the second graph.
  bool is_to_be_cut() const { return cutting_ != nullptr; }
  absl::Status Cut();

 private:
  struct Pair {
    CUgraphExec_st* before = nullptr;
    CUgraphExec_st* behind = nullptr;
  };

  std::map<int32_t, CUgraphExec_st*> graphs_;
  std::map<int32_t, Pair> cut_graphs_;
  Pair* cutting_ = nullptr;
  CUstream_st* stream_ = nullptr;  // while cutting
};

}  // namespace behemoth::worker::cuda
