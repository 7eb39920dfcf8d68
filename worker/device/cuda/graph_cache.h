// Recorded steps: for each width of decode step two CUDA graphs, captured the first time and
// launched from then on: up to the samples, and those, because masks may come in between. Warm-up
// runs every width, so that nothing is captured while users wait.
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

  // Enqueues the graphs of `width` on `stream`, and what `between` does between them; records them
  // first, from what `enqueue` puts on the stream, if there are none. `enqueue` calls Cut once.
  absl::Status Run(int32_t width, CUstream_st* stream, absl::FunctionRef<void()> enqueue,
                   absl::FunctionRef<void()> between);
  // While a step is recorded: what follows belongs to the second graph.
  bool is_recording() const { return recording_ != nullptr; }
  absl::Status Cut();

 private:
  struct Pair {
    CUgraphExec_st* before = nullptr;
    CUgraphExec_st* behind = nullptr;
  };

  std::map<int32_t, Pair> graphs_;
  Pair* recording_ = nullptr;
  CUstream_st* stream_ = nullptr;  // while recording
};

}  // namespace behemoth::worker::cuda
