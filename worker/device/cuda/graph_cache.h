// Recorded steps: for each width of decode step one CUDA graph, captured the first time and
// launched from then on. Warm-up runs every width, so that nothing is captured while users wait.
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

 private:
  std::map<int32_t, CUgraphExec_st*> graphs_;
};

}  // namespace behemoth::worker::cuda
