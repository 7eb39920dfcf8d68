// The backend of NVIDIA GPUs: one stream, bf16 activations, steps recorded as CUDA graphs.
//
// Layouts. residual, qkv and q are row-major; what a projection reads (normed, attention,
// intermediate) is in the GEMM's tiles, [cols / 8][PaddedRows(tokens)][8]; logits are float.
// Ranks. A shared product's sum over the ranks is added to the residual by the norm behind it.
// Steps. Two may be on their way: the arrays on the device are written in stream order, their
// staging in pinned memory exists twice.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "kernels/all_reduce/all_reduce.h"
#include "kernels/fused/fused.h"
#include "worker/device/cuda/graph_cache.h"
#include "worker/device/cuda/host_upload.h"
#include "worker/device/cuda/workspace.h"
#include "worker/device/device.h"

struct CUevent_st;

namespace behemoth::worker::cuda {

inline constexpr int32_t kPipelineDepth = 2;
// One more than steps on their way: what a step is timed against is the end of the one before it,
// while the next one's marks are being set.
inline constexpr size_t kMarkSets = kPipelineDepth + 1;

class CudaBackend : public Backend {
 public:
  // Takes all memory but the activations'. RESOURCE_EXHAUSTED if the GPU does not have it.
  static absl::StatusOr<std::unique_ptr<Backend>> Make(const BackendSpec& spec,
                                                       const std::vector<LinearPlan>& linears,
                                                       uint64_t weight_bytes, int32_t ordinal,
                                                       const kernels::DeviceLimits& limits);
  ~CudaBackend() override;

  absl::StatusOr<Tensor> Allocate(int32_t rows, int32_t cols, ElementUse use) override;
  absl::StatusOr<LinearHandle> AddLinear(std::vector<LinearWeights> parts, LinearUse use) override;
  absl::StatusOr<GainHandle> AddGain(const DenseMatrix& gain) override;
  absl::StatusOr<TableHandle> AddTable(DenseMatrix table) override;
  absl::Status SetKvScales(int32_t layer, const std::vector<float>& k,
                           const std::vector<float>& v) override;
  absl::StatusOr<LinearHandle> TableAsLinear(TableHandle table) override;
  absl::Status FinishWeights() override;
  LoadTimes load_times() const override { return load_times_; }

  absl::Status RunStep(const StepPlan& plan,
                       absl::FunctionRef<void(int32_t tokens)> forward) override;
  absl::StatusOr<StepResult> Collect() override;

  void Embed(TableHandle table, Tensor out) override;
  void RmsNorm(Tensor x, GainHandle gain, float epsilon, Tensor out) override;
  void Linear(Tensor x, LinearHandle weight, Tensor out) override;
  void LinearAdd(Tensor x, LinearHandle weight, Tensor residual) override;
  void LinearSiluMul(Tensor x, LinearHandle gate_up, Tensor out) override;
  void RopeAndStore(int32_t layer, Tensor qkv) override;
  void Attention(int32_t layer, Tensor qkv, Tensor out) override;
  int32_t LogitPasses() const override;
  Tensor GatherLogitRows(int32_t pass, Tensor x, Tensor out) override;
  void Sample(int32_t pass, Tensor logits) override;

  absl::StatusOr<std::vector<float>> ReadLogits(Tensor tensor) override;

 private:
  struct Table {
    const kernels::bf16* data;
    int32_t rows, cols;
  };
  // Masks that the stream waits for, in front of the samples.
  struct LateMasks {
    std::shared_ptr<MaskGate> gate;
    const StepInputs* inputs = nullptr;
    std::vector<int32_t> lines;
  };
  // One step on its way.
  struct Flight {
    StepReceipt receipt;
    size_t staging = 0;
    size_t marks = 0;
    bool follows = false;             // another step was on its way when this one was enqueued
    std::unique_ptr<LateMasks> late;  // null: all masks are there
  };
  // Marks in the stream: before a step's first kernel, behind its last, behind its read-back.
  struct Marks {
    CUevent_st* began = nullptr;
    CUevent_st* ended = nullptr;
    CUevent_st* done = nullptr;
  };

  CudaBackend(const BackendSpec& spec, int32_t ordinal, const kernels::DeviceLimits& limits);
  absl::Status TakeMemory(const std::vector<LinearPlan>& linears, uint64_t weight_bytes);
  absl::Status TakeStaging();
  absl::StatusOr<kernels::bf16*> AddDense(DenseMatrix matrix);
  absl::StatusOr<void*> LoadingScratch(size_t bytes);
  absl::Status PackPending() { return linears_->PackPending(*upload_, stream_); }

  absl::Status Enqueue(const StepPlan& plan, Flight* flight,
                       absl::FunctionRef<void(int32_t tokens)> forward);
  absl::Status UploadInputs(size_t staging);
  // In front of the samples; waits on the stream for those that are late.
  void UploadMasks(const Flight& flight);
  absl::Status Record(CUevent_st* mark);
  DeviceTimes TimesOf(const Flight& flight) const;
  void CopyBlocks();
  // Remembers the first error.
  void Do(const kernels::KernelError& error);
  // Where the next kernel goes; all but a step's first overlap their predecessor's end.
  kernels::LaunchContext Next();
  void Multiply(Tensor x, LinearHandle weight, Tensor out, kernels::GemmEpilogue epilogue,
                kernels::GemmOutput output);
  void DecodeAttention(const kernels::PagedAttentionArgs& all);
  // ---- Of several ranks: rank_operations.cc ----
  bool SumsOnPeers() const { return spec_.group != nullptr && spec_.group->peers() != nullptr; }
  PeerTable::Rank& MyLine() const;
  void ShowToPeers();
  DenseMatrix PartOfTable(DenseMatrix table) const;
  void SpreadOverPeers(int32_t rows, kernels::EmbeddingArgs* args) const;
  kernels::RankMeeting NextMeeting();
  void LinearAddOverRanks(Tensor x, LinearHandle weight, Tensor residual);
  void LogitsOverRanks(Tensor x, LinearHandle weight, Tensor out);
  void GatherByLibrary(Tensor part, Tensor out);
  // What an operation of the group says; the next kernel waits for its end.
  void DoOverRanks(const absl::Status& status);
  // residual += the sum that LinearAdd left, where no RmsNorm has done it.
  void AddPending(Tensor residual);
  // `row` and the pending sum, out of the peers' memory.
  void SumOverPeers(const kernels::RmsNormArgs& row);
  // ----
  char* LayerPool(int32_t layer) const;
  // [kv_heads]; null = 1.
  const float* KeyScales(int32_t layer) const;
  const float* ValueScales(int32_t layer) const;

  const BackendSpec spec_;
  const int32_t ordinal_;
  const kernels::DeviceLimits limits_;
  const kernels::AttentionShape shape_;
  const kernels::DecodeAttentionConfig decode_attention_;
  const kernels::PrefillAttentionConfig prefill_attention_;

  CUstream_st* stream_ = nullptr;
  std::array<Marks, kMarkSets> marks_;
  Memory weight_memory_, work_memory_, kv_memory_, staging_memory_, loading_memory_;
  std::deque<Memory> activations_;
  std::unique_ptr<HostUpload> upload_;  // until FinishWeights
  size_t staged_bytes_ = 0;             // of the projection that is not packed yet
  bool staged_at_end_ = false;          // of the loading scratch
  LoadTimes load_times_;
  Arena weights_;
  Workspace work_{};
  std::optional<LinearStore> linears_;
  std::optional<SlotStates> slots_;
  std::vector<StepInputs> inputs_;          // by staging
  std::vector<StepArrays> host_inputs_;     // by staging
  std::vector<ResultArrays> host_results_;  // by staging
  std::vector<const kernels::bf16*> gains_;
  std::vector<Table> tables_;
  bool has_kv_scales_ = false;
  GraphCache graphs_;

  StepShape step_;
  int32_t launches_ = 0;
  // The part that LinearAdd made last is still to be added to the residual; with peers, also to be
  // summed.
  bool pending_sum_ = false;
  size_t partial_ = 0;      // of work_.partials, the one LinearAdd wrote last
  size_t logits_part_ = 0;  // of work_.logits_parts, the one that Linear did
  size_t next_staging_ = 0, next_marks_ = 0;
  std::deque<Flight> flights_;
  const Flight* enqueuing_ = nullptr;
  absl::Status status_;
};

}  // namespace behemoth::worker::cuda
