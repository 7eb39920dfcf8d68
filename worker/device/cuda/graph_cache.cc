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
  const auto destroy = [](CUgraphExec_st* graph) {
    if (graph != nullptr) cudaGraphExecDestroy(graph);
  };
  for (const auto& [width, graph] : graphs_) destroy(graph);
  for (const auto& [width, graphs] : cut_graphs_) {
    destroy(graphs.before);
    destroy(graphs.behind);
  }
}

absl::Status GraphCache::Run(int32_t width, CUstream_st* stream,
                             absl::FunctionRef<void()> enqueue) {
  CUgraphExec_st*& graph = graphs_[width];
  if (graph == nullptr) {
    if (absl::Status began = Begin(stream); !began.ok()) return began;
    enqueue();
    if (absl::Status ended = End(stream, &graph); !ended.ok()) return ended;
  }
  return FromCuda(cudaGraphLaunch(graph, stream), "cudaGraphLaunch");
}

absl::Status GraphCache::Cut() {
  absl::Status status = End(stream_, &cutting_->before);
  status.Update(Begin(stream_));
  return status;
}

absl::Status GraphCache::RunCut(int32_t width, CUstream_st* stream,
                                absl::FunctionRef<void()> enqueue,
                                absl::FunctionRef<void()> between) {
  Pair& graphs = cut_graphs_[width];
  if (graphs.behind == nullptr) {
    if (absl::Status began = Begin(stream); !began.ok()) return began;
    cutting_ = &graphs;
    stream_ = stream;
    enqueue();
    cutting_ = nullptr;
    if (absl::Status ended = End(stream, &graphs.behind); !ended.ok()) return ended;
  }
  absl::Status status = FromCuda(cudaGraphLaunch(graphs.before, stream), "cudaGraphLaunch");
  between();
  status.Update(FromCuda(cudaGraphLaunch(graphs.behind, stream), "cudaGraphLaunch"));
  return status;
}

}  // namespace behemoth::worker::cuda
