#include "worker/device/cuda/graph_cache.h"

#include "worker/device/cuda/cuda_status.h"

namespace behemoth::worker::cuda {
namespace {

absl::Status Record(CUstream_st* stream, absl::FunctionRef<void()> enqueue,
                    CUgraphExec_st** executable) {
  absl::Status status = FromCuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
                                 "cudaStreamBeginCapture");
  if (!status.ok()) return status;
  enqueue();
  cudaGraph_t graph = nullptr;
  status = FromCuda(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
  if (!status.ok()) return status;
  status = FromCuda(cudaGraphInstantiate(executable, graph, 0), "cudaGraphInstantiate");
  cudaGraphDestroy(graph);
  return status;
}

}  // namespace

GraphCache::~GraphCache() {
  for (const auto& [width, graph] : graphs_) cudaGraphExecDestroy(graph);
}

absl::Status GraphCache::Run(int32_t width, CUstream_st* stream,
                             absl::FunctionRef<void()> enqueue) {
  CUgraphExec_st*& graph = graphs_[width];
  if (graph == nullptr) {
    absl::Status recorded = Record(stream, enqueue, &graph);
    if (!recorded.ok()) return recorded;
  }
  return FromCuda(cudaGraphLaunch(graph, stream), "cudaGraphLaunch");
}

}  // namespace behemoth::worker::cuda
