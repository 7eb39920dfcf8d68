// The sampler: one block of 1,024 threads a row. Limit: latency; a row of 32,768 is 128 KB read
// once.
//
// A row lives in registers (32 words a thread; larger vocabularies sweep a scratch line that stays
// in L2): first as adjusted logits, then as masses, last as raw logits for the rows that want
// logprobs. Thresholds are found by bisection over masses, powers of two first; as soon as at most
// 1,024 candidates lie inside the bracket they move to one word a thread, and a round costs one
// compare and one block reduction instead of 32.
//
// A row whose request uses more than that, or another order, takes the other path: the same steps
// on lines in L2, so that its code costs the registers of plain rows nothing.
#include "kernels/common/ptx.cuh"
#include "kernels/sampling/row_sampler.cuh"
#include "kernels/sampling/staged_sampler.cuh"

namespace behemoth::kernels {
namespace {

using rows::kThreads;

template <bool kHeld>
__global__ __launch_bounds__(kThreads) void SampleKernel(const __grid_constant__ SampleArgs args) {
  __shared__ rows::SharedState shared;
  ptx::AllowSuccessor();
  ptx::WaitForPredecessor();
  const int row = blockIdx.x;
  if (args.slot[row] < 0) return;
  const SlotSampling& sampling = args.sampling[args.slot[row]];
  const bool staged = sampling.has_stages != 0 || sampling.has_history != 0;
  if (staged && args.score_token == nullptr) {
    rows::StagedSampler(args, row, &shared).Run();
  } else {
    rows::RowSampler<kHeld>(args, row, &shared).Run();
  }
}

__device__ void MarkAll(const TokenUseArgs& args, const int32_t* ids, int count, uint32_t mark) {
  for (int i = threadIdx.x; i < count; i += kThreads) {
    if (ids[i] >= 0 && ids[i] < args.vocabulary) atomicOr(args.line + ids[i], mark);
  }
}

__global__ __launch_bounds__(kThreads) void TokenUseKernel(const TokenUseArgs args) {
  ptx::AllowSuccessor();
  ptx::WaitForPredecessor();
  for (int id = threadIdx.x; id < args.vocabulary; id += kThreads) args.line[id] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < args.output_count; i += kThreads) {
    const int id = args.output[i];
    if (id >= 0 && id < args.vocabulary) atomicAdd(args.line + id, 1u);
  }
  MarkAll(args, args.prompt, args.prompt_count, kInPrompt);
  MarkAll(args, args.stop, args.stop_count, kIsStop);
}

}  // namespace

KernelError LaunchSample(const SampleArgs& args, const LaunchContext& context) {
  if (args.vocabulary <= 0 || args.vocabulary > kMaxVocabulary) {
    return {kInvalidArgument, "sample: vocabulary"};
  }
  if (args.logits_stride < args.vocabulary || args.logits_stride % 8 != 0) {
    return {kInvalidArgument, "sample: logits_stride"};
  }
  if (args.logits == nullptr || args.slot == nullptr || args.position == nullptr ||
      args.sampling == nullptr || args.out == nullptr) {
    return {kInvalidArgument, "sample: pointer"};
  }
  if (args.scratch == nullptr) {
    return {kInvalidArgument, "sample: scratch"};
  }
  if (args.history != nullptr && (args.repeats == nullptr || args.history_stride > kMaxHistory)) {
    return {kInvalidArgument, "sample: history"};
  }
  if (args.rows <= 0) return {};
  const LaunchShape shape = {dim3(args.rows), dim3(kThreads)};
  return args.vocabulary <= kHeldVocabulary ? Launch(SampleKernel<true>, shape, context, args)
                                            : Launch(SampleKernel<false>, shape, context, args);
}

KernelError LaunchTokenUse(const TokenUseArgs& args, const LaunchContext& context) {
  if (args.line == nullptr || args.vocabulary <= 0) {
    return {kInvalidArgument, "token use: line"};
  }
  return Launch(TokenUseKernel, {dim3(1), dim3(kThreads)}, context, args);
}

}  // namespace behemoth::kernels