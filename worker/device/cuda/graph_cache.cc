#include "worker/device/cuda/graph_cache.h"

#include "worker/device/cuda/cuda_status.h"

namespace behemoth::worker::cuda {
namespace {

absl::Status Begin(CUstream_st* stream) {
  return FromCuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
                  "cudaStreamBeginCapture");
}

absl::Status End(CUstream_st* stream, CUgraphExec_st** executable) {
  cudaGraph_t graph = nullptr;
  absl::Status status = FromCuda(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
  if (!status.ok()) return status;
  status = FromCuda(cudaGraphInstantiate(executable, graph, 0), "cudaGraphInstantiate");
  cudaGraphDestroy(graph);
  return status;
}

}  // namespace

GraphCache::~GraphCache() {
  for (const auto& [width, graphs] : graphs_) {
    if (graphs.before != nullptr) cudaGraphExecDestroy(graphs.before);
    if (graphs.behind != nullptr) cudaGraphExecDestroy(graphs.behind);
  }
}

absl::Status GraphCache::Cut() {
  absl::Status status = End(stream_, &recording_->before);
  status.Update(Begin(stream_));
  return status;
}

absl::Status GraphCache::Run(int32_t width, CUstream_st* stream, absl::FunctionRef<void()> enqueue,
                             absl::FunctionRef<void()> between) {
  Pair& graphs = graphs_[width];
  if (graphs.behind == nullptr) {
    recording_ = &graphs;
    stream_ = stream;
    absl::Status status = Begin(stream);
    if (status.ok()) {
      enqueue();
      status = End(stream, &graphs.behind);
    }
    recording_ = nullptr;
    if (!status.ok()) return status;
  }
  absl::Status status = FromCuda(cudaGraphLaunch(graphs.before, stream), "cudaGraphLaunch");
  between();
  status.Update(FromCuda(cudaGraphLaunch(graphs.behind, stream), "cudaGraphLaunch"));
  return status;
}

}  // namespace behemoth::worker::cuda
