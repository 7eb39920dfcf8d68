#include "worker/device/cuda/step_results.h"

#include "worker/device/cuda/cuda_status.h"

namespace behemoth::worker::cuda {
namespace {

using kernels::kMaxTopLogprobs;
using kernels::SampleOutput;
using kernels::SampleStatus;
using kernels::TopToken;

template <typename T>
absl::Status Download(T* to, const T* from, int32_t count, CUstream_st* stream) {
  if (count == 0) return absl::OkStatus();
  return FromCuda(cudaMemcpyAsync(to, from, static_cast<size_t>(count) * sizeof(T),
                                  cudaMemcpyDeviceToHost, stream),
                  "read-back of a step");
}

TokenLogprobs LogprobsOf(const SampleOutput& output, const TopToken* top, int32_t count) {
  TokenLogprobs logprobs{.logprob = output.logprob, .rank = output.rank};
  for (int32_t i = 0; i < count; ++i) {
    logprobs.top_ids.push_back(top[i].id);
    logprobs.top_logprobs.push_back(top[i].logprob);
  }
  return logprobs;
}

}  // namespace

ResultArrays ResultArrays::Take(Arena& arena, const RunnerLimits& limits) {
  const size_t sequences = static_cast<size_t>(limits.max_sequences);
  const size_t tokens = static_cast<size_t>(limits.max_step_tokens);
  return {.samples = arena.Take<SampleOutput>(sequences),
          .sample_tops = arena.Take<TopToken>(sequences * kMaxTopLogprobs),
          .scores = arena.Take<SampleOutput>(tokens),
          .score_tops = arena.Take<TopToken>(tokens * kMaxTopLogprobs)};
}

absl::Status ReadBack(const ResultArrays& device, const ResultArrays& host, const StepShape& shape,
                      CUstream_st* stream) {
  absl::Status status = Download(host.samples, device.samples, shape.samples, stream);
  status.Update(Download(host.scores, device.scores, shape.scores, stream));
  if (!shape.wants_top) return status;
  status.Update(
      Download(host.sample_tops, device.sample_tops, shape.samples * kMaxTopLogprobs, stream));
  status.Update(
      Download(host.score_tops, device.score_tops, shape.scores * kMaxTopLogprobs, stream));
  return status;
}

StepResult ResultOf(const StepReceipt& receipt, const ResultArrays& host) {
  StepResult result{.number = receipt.number};
  for (size_t i = 0; i < receipt.sample_tops.size(); ++i) {
    const SampleOutput& output = host.samples[i];
    SampleResult sample{.token = output.token, .finite = output.status == SampleStatus::kOk};
    if (sample.finite && receipt.sample_tops[i] >= 0) {
      sample.logprobs =
          LogprobsOf(output, host.sample_tops + i * kMaxTopLogprobs, receipt.sample_tops[i]);
    }
    result.samples.push_back(std::move(sample));
  }
  for (const StepReceipt::Prompt& prompt : receipt.prompts) {
    std::vector<TokenLogprobs>& scores = result.prompt_logprobs.emplace_back();
    for (int32_t i = prompt.first; i < prompt.first + prompt.count; ++i) {
      const TopToken* const top = host.score_tops + int64_t{i} * kMaxTopLogprobs;
      scores.push_back(LogprobsOf(host.scores[i], top, prompt.top));
    }
  }
  return result;
}

}  // namespace behemoth::worker::cuda
