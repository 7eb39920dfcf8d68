#include "worker/device/cuda/cuda_backend.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/fused/fused.h"
#include "worker/device/cuda/cuda_status.h"
#include "worker/device/cuda/linear_source.h"
#include "worker/device/plan_check.h"

namespace behemoth::worker::cuda {

using kernels::bf16;
using kernels::GemmEpilogue;
using kernels::GemmOutput;

namespace {

// From row 0 to row `row` of a tiled activation: the rows of eight columns lie side by side.
constexpr int64_t RowOffset(int32_t row) { return int64_t{row} * 8; }

}  // namespace

// ---- Life ---------------------------------------------------------------------------------------

CudaBackend::CudaBackend(const BackendSpec& spec, int32_t ordinal,
                         const kernels::DeviceLimits& limits)
    : spec_(spec),
      ordinal_(ordinal),
      limits_(limits),
      shape_(AttentionShapeOf(spec)),
      decode_attention_(kernels::SelectDecodeAttention(shape_, limits)),
      prefill_attention_(kernels::SelectPrefillAttention(shape_, limits)) {}

absl::StatusOr<std::unique_ptr<Backend>> CudaBackend::Make(const BackendSpec& spec,
                                                           const std::vector<LinearPlan>& linears,
                                                           uint64_t weight_bytes, int32_t ordinal,
                                                           const kernels::DeviceLimits& limits) {
  auto backend = std::unique_ptr<CudaBackend>(new CudaBackend(spec, ordinal, limits));
  absl::Status status = FromCuda(cudaSetDevice(ordinal), "cudaSetDevice");
  if (!status.ok()) return status;
  status = FromCuda(cudaStreamCreateWithFlags(&backend->stream_, cudaStreamNonBlocking),
                    "cudaStreamCreate");
  status.Update(backend->TakeMemory(linears, weight_bytes));
  status.Update(backend->TakeStaging());
  if (!status.ok()) return status;
  absl::StatusOr<std::unique_ptr<UploadBuffers>> buffers = MakePinnedBuffers(backend->stream_, {});
  if (!buffers.ok()) return buffers.status();
  backend->upload_ = std::make_unique<HostUpload>(*std::move(buffers));
  return backend;
}

CudaBackend::~CudaBackend() {
  cudaSetDevice(ordinal_);
  upload_.reset();  // its copies are on the stream
  if (stream_ != nullptr) cudaStreamSynchronize(stream_);
  for (const Marks& marks : marks_) {
    for (CUevent_st* mark : {marks.began, marks.ended, marks.done}) cudaEventDestroy(mark);
  }
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

absl::Status CudaBackend::TakeMemory(const std::vector<LinearPlan>& linears,
                                     uint64_t weight_bytes) {
  Arena measure;
  absl::StatusOr<Workspace> measured = Workspace::Take(measure, spec_, linears, limits_);
  if (!measured.ok()) return measured.status();
  const size_t kv_bytes = static_cast<size_t>(spec_.limits.blocks) *
                          static_cast<size_t>(spec_.layers) * KvBlockBytes(shape_.kv);
  absl::Status status;
  const auto take = [&](size_t bytes) {
    absl::StatusOr<Memory> memory = Memory::Allocate(MemoryKind::kDevice, bytes);
    status.Update(memory.status());
    return memory.ok() ? *std::move(memory) : Memory();
  };
  weight_memory_ = take(weight_bytes);
  work_memory_ = take(measure.used());
  kv_memory_ = take(kv_bytes);
  if (!status.ok()) return status;

  weights_ = Arena(weight_memory_.data(), weight_memory_.bytes());
  Arena work(work_memory_.data(), work_memory_.bytes());
  work_ = *Workspace::Take(work, spec_, linears, limits_);
  linears_.emplace(limits_, &weights_, work_.gemm);
  if (SumsOnPeers()) ShowToPeers();
  // Zeros: the GEMMs' counters, the attention's, and all that a first step might read unwritten.
  status.Update(FromCuda(cudaMemsetAsync(work_memory_.data(), 0, work_memory_.bytes(), stream_),
                         "cudaMemset"));
  status.Update(
      FromCuda(cudaMemcpyAsync(work_.inverse_frequency, spec_.rope_inverse_frequencies.data(),
                               spec_.rope_inverse_frequencies.size() * sizeof(float),
                               cudaMemcpyHostToDevice, stream_),
               "upload of rope frequencies"));
  return status;
}

absl::Status CudaBackend::TakeStaging() {
  const RunnerLimits& limits = spec_.limits;
  std::vector<SlotArrays> host_slots;
  const auto lay_out = [&](Arena& arena) {
    for (int32_t i = 0; i < kPipelineDepth; ++i) {
      host_inputs_.push_back(StepArrays::Take(arena, limits));
      host_results_.push_back(ResultArrays::Take(arena, limits));
      host_slots.push_back(SlotArrays::Take(arena, limits));
    }
  };
  Arena measure;
  lay_out(measure);
  absl::StatusOr<Memory> memory = Memory::Allocate(MemoryKind::kPinnedHost, measure.used());
  if (!memory.ok()) return memory.status();
  staging_memory_ = *std::move(memory);
  host_inputs_.clear();
  host_results_.clear();
  host_slots.clear();
  Arena arena(staging_memory_.data(), staging_memory_.bytes());
  lay_out(arena);
  slots_.emplace(limits, work_.slots, host_slots);
  for (const StepArrays& arrays : host_inputs_) {
    inputs_.emplace_back(limits, arrays);
  }
  for (Marks& marks : marks_) {
    for (CUevent_st** mark : {&marks.began, &marks.ended, &marks.done}) {
      absl::Status made = FromCuda(cudaEventCreate(mark), "cudaEventCreate");
      if (!made.ok()) return made;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Tensor> CudaBackend::Allocate(int32_t rows, int32_t cols, ElementUse use) {
  const bool logits = use == ElementUse::kLogits;
  const size_t stride = static_cast<size_t>(logits ? (cols + 7) / 8 * 8 : cols);
  const size_t bytes =
      static_cast<size_t>(PaddedRows(rows)) * stride * (logits ? sizeof(float) : sizeof(bf16));
  absl::StatusOr<Memory> memory = Memory::Allocate(MemoryKind::kDevice, bytes);
  if (!memory.ok()) return memory.status();
  activations_.push_back(*std::move(memory));
  // Pad rows are multiplied like others: their contents do not matter, but a NaN costs no less.
  absl::Status zeroed =
      FromCuda(cudaMemsetAsync(activations_.back().data(), 0, bytes, stream_), "cudaMemset");
  if (!zeroed.ok()) return zeroed;
  return Tensor{activations_.back().data(), rows, cols, use};
}

// ---- Weights ------------------------------------------------------------------------------------

// The KV pool means nothing until the first step; a model with a small one gets memory of its own,
// which goes back then. Projections are staged at its two ends in turn: one is uploaded while the
// one before waits to be packed. Where there is no room for both, that one is packed first.
absl::StatusOr<void*> CudaBackend::LoadingScratch(size_t bytes) {
  if (bytes > std::max(kv_memory_.bytes(), loading_memory_.bytes())) {
    absl::Status idle = PackPending();
    idle.Update(FromCuda(cudaStreamSynchronize(stream_), "packing of weights"));
    if (!idle.ok()) return idle;
    loading_memory_ = Memory();
    absl::StatusOr<Memory> memory = Memory::Allocate(MemoryKind::kDevice, bytes);
    if (!memory.ok()) return memory.status();
    loading_memory_ = *std::move(memory);
  }
  const Memory& scratch =
      loading_memory_.bytes() > kv_memory_.bytes() ? loading_memory_ : kv_memory_;
  if (bytes + staged_bytes_ > scratch.bytes()) {
    if (absl::Status packed = PackPending(); !packed.ok()) return packed;
  }
  staged_bytes_ = bytes;
  staged_at_end_ = !staged_at_end_;
  // Pieces of an arena are aligned by its start.
  const size_t last = (scratch.bytes() - bytes) / Arena::kAlignment * Arena::kAlignment;
  return static_cast<char*>(scratch.data()) + (staged_at_end_ ? last : 0);
}

absl::StatusOr<LinearHandle> CudaBackend::AddLinear(std::vector<LinearWeights> parts,
                                                    LinearUse use) {
  if (absl::Status prepared = LinearSource::Prepare(parts); !prepared.ok()) return prepared;
  const absl::StatusOr<void*> scratch = LoadingScratch(LinearStore::StagingBytes(parts));
  if (!scratch.ok()) return scratch.status();
  return linears_->Add(std::move(parts), use, *scratch, *upload_, stream_);
}

absl::StatusOr<bf16*> CudaBackend::AddDense(DenseMatrix matrix) {
  bf16* const to = weights_.Take<bf16>(matrix.size());
  if (to == nullptr) {
    return absl::ResourceExhaustedError("tables and gains are more than the memory plan foresaw");
  }
  if (matrix.type != ElementType::kBfloat16) {
    if (absl::Status loaded = matrix.bytes.Load(); !loaded.ok()) return loaded;
    matrix = AsBfloat16(matrix);
  }
  absl::Status sent = upload_->Start(to, matrix.bytes.bytes()).status();
  if (!sent.ok()) return sent;
  return to;
}

absl::StatusOr<GainHandle> CudaBackend::AddGain(const DenseMatrix& gain) {
  const absl::StatusOr<bf16*> data = AddDense(gain);
  if (!data.ok()) return data.status();
  gains_.push_back(*data);
  return static_cast<GainHandle>(gains_.size() - 1);
}

absl::StatusOr<TableHandle> CudaBackend::AddTable(DenseMatrix table) {
  Table kept{.data = nullptr, .rows = table.rows, .cols = table.cols};
  if (SumsOnPeers()) table = PartOfTable(std::move(table));
  const absl::StatusOr<bf16*> data = AddDense(std::move(table));
  if (!data.ok()) return data.status();
  kept.data = *data;
  if (SumsOnPeers()) MyLine().table = *data;
  tables_.push_back(kept);
  return static_cast<TableHandle>(tables_.size() - 1);
}

absl::Status CudaBackend::SetKvScales(int32_t layer, const std::vector<float>& k,
                                      const std::vector<float>& v) {
  has_kv_scales_ = spec_.kv_type == KvType::kFp8;
  if (!has_kv_scales_) return absl::OkStatus();
  float* const to = work_.kv_scales + int64_t{layer} * 2 * spec_.kv_heads;
  const size_t bytes = static_cast<size_t>(spec_.kv_heads) * sizeof(float);
  absl::Status status =
      FromCuda(cudaMemcpy(to, k.data(), bytes, cudaMemcpyHostToDevice), "upload of KV scales");
  status.Update(FromCuda(cudaMemcpy(to + spec_.kv_heads, v.data(), bytes, cudaMemcpyHostToDevice),
                         "upload of KV scales"));
  return status;
}

const float* CudaBackend::KeyScales(int32_t layer) const {
  return has_kv_scales_ ? work_.kv_scales + int64_t{layer} * 2 * spec_.kv_heads : nullptr;
}

const float* CudaBackend::ValueScales(int32_t layer) const {
  return has_kv_scales_ ? KeyScales(layer) + spec_.kv_heads : nullptr;
}

absl::StatusOr<LinearHandle> CudaBackend::TableAsLinear(TableHandle handle) {
  if (absl::Status uploaded = upload_->Flush(); !uploaded.ok()) return uploaded;
  const Table& table = tables_[static_cast<size_t>(handle)];
  const int32_t ranks = spec_.group == nullptr ? 1 : spec_.group->size();
  const int32_t rows = table.rows / ranks;
  // Spread over the peers, the table is this rank's part already.
  const int64_t first =
      spec_.group == nullptr || SumsOnPeers() ? 0 : int64_t{spec_.group->rank()} * rows;
  return linears_->AddTable(table.data + first * table.cols, rows, table.cols, stream_);
}

absl::Status CudaBackend::FinishWeights() {
  absl::Status status = PackPending();
  status.Update(upload_->Flush());
  status.Update(FromCuda(cudaStreamSynchronize(stream_), "packing of weights"));
  const UploadTimes times = upload_->times();
  const auto readers = static_cast<double>(upload_->readers());
  load_times_ = {.reading = times.reading / readers,
                 .copying = times.awaiting_device / readers,
                 .idle = times.idle / readers,
                 .packing = linears_->PackingTime()};
  upload_.reset();
  loading_memory_ = Memory();
  return status;
}

// ---- A step -------------------------------------------------------------------------------------

absl::Status CudaBackend::RunStep(const StepPlan& plan,
                                  absl::FunctionRef<void(int32_t tokens)> forward) {
  if (!status_.ok()) return status_;
  if (absl::Status legal = CheckPlan(plan, spec_.limits); !legal.ok()) return legal;
  if (flights_.size() == kPipelineDepth) {
    return absl::InternalError("a step was submitted before the oldest of two was collected");
  }
  status_ = FromCuda(cudaSetDevice(ordinal_), "cudaSetDevice");
  const size_t staging = std::exchange(next_staging_, (next_staging_ + 1) % kPipelineDepth);
  Flight flight{.staging = staging,
                .marks = std::exchange(next_marks_, (next_marks_ + 1) % kMarkSets),
                .follows = !flights_.empty()};
  status_.Update(Enqueue(plan, &flight, forward));
  flights_.push_back(std::move(flight));
  return status_;
}

absl::Status CudaBackend::Enqueue(const StepPlan& plan, Flight* flight,
                                  absl::FunctionRef<void(int32_t tokens)> forward) {
  const size_t staging = flight->staging;
  const Marks& marks = marks_[flight->marks];
  absl::Status status = slots_->Bind(plan.bindings, staging, stream_);
  step_ = inputs_[staging].Load(plan, slots_->tops(), &flight->receipt);
  status.Update(UploadInputs(staging));
  if (!status.ok()) return status;
  launches_ = 0;
  CopyBlocks();
  launches_ = 0;  // the first kernel of the pass waits for the copies to end
  if (plan.late_masks) {
    flight->late = std::make_unique<LateMasks>(
        LateMasks{plan.late_masks, &inputs_[staging], flight->receipt.late_masks});
  }
  enqueuing_ = flight;
  status_.Update(Record(marks.began));
  const auto pass = [&] { forward(step_.tokens); };
  if (step_.recordable && flight->late != nullptr) {
    status_.Update(graphs_.RunCut(step_.tokens, stream_, pass, [&] { UploadMasks(*flight); }));
  } else if (step_.recordable) {
    UploadMasks(*flight);
    status_.Update(graphs_.Run(step_.tokens, stream_, pass));
  } else if (step_.tokens > 0) {
    forward(step_.tokens);
  }
  status_.Update(Record(marks.ended));
  if (!status_.ok()) return status_;
  status = ReadBack(work_.results, host_results_[staging], step_, stream_);
  status.Update(Record(marks.done));
  return status;
}

absl::Status CudaBackend::Record(CUevent_st* mark) {
  return FromCuda(cudaEventRecord(mark, stream_), "cudaEventRecord");
}

DeviceTimes CudaBackend::TimesOf(const Flight& flight) const {
  const auto between = [](CUevent_st* from, CUevent_st* to) {
    float ms = 0;
    return cudaEventElapsedTime(&ms, from, to) == cudaSuccess ? absl::Milliseconds(ms)
                                                              : absl::ZeroDuration();
  };
  const Marks& marks = marks_[flight.marks];
  const Marks& before = marks_[(flight.marks + kMarkSets - 1) % kMarkSets];
  return {.busy = between(marks.began, marks.ended),
          .idle = flight.follows ? between(before.ended, marks.began) : absl::ZeroDuration()};
}

// All arrays lie in one range that ends with the block tables.
absl::Status CudaBackend::UploadInputs(size_t staging) {
  const StepArrays& host = host_inputs_[staging];
  const size_t table_bytes = static_cast<size_t>(step_.lines) *
                             static_cast<size_t>(StepInputs::TableStride(spec_.limits)) *
                             sizeof(int32_t);
  const size_t bytes = static_cast<size_t>(reinterpret_cast<char*>(host.tables) -
                                           reinterpret_cast<char*>(host.token_id)) +
                       table_bytes;
  return FromCuda(
      cudaMemcpyAsync(work_.inputs.token_id, host.token_id, bytes, cudaMemcpyHostToDevice, stream_),
      "upload of a step");
}

void CudaBackend::UploadMasks(const Flight& flight) {
  if (step_.masks == 0) return;
  if (flight.late != nullptr) {
    // A thread of the driver's, which may call nothing of CUDA. The flight is there until the step
    // has ended.
    const auto await = [](void* late_masks) {
      const auto& late = *static_cast<const LateMasks*>(late_masks);
      late.inputs->FillMasks(late.lines, late.gate->Await());
    };
    status_.Update(FromCuda(cudaLaunchHostFunc(stream_, await, flight.late.get()), "late masks"));
  }
  const size_t bytes =
      static_cast<size_t>(step_.masks) * StepInputs::MaskWords(spec_.limits) * sizeof(uint32_t);
  status_.Update(FromCuda(cudaMemcpyAsync(work_.inputs.mask, host_inputs_[flight.staging].mask,
                                          bytes, cudaMemcpyHostToDevice, stream_),
                          "upload of a step's masks"));
}

void CudaBackend::CopyBlocks() {
  if (step_.copies == 0) return;
  kernels::KvBlockCopyArgs args;
  args.first_pool = LayerPool(0);
  args.layer_stride_bytes = LayerPool(1) - LayerPool(0);
  args.from_to = work_.inputs.copies;
  args.shape = shape_.kv;
  args.layers = spec_.layers;
  args.pairs = step_.copies;
  Do(kernels::LaunchKvBlockCopy(args, Next()));
}

absl::StatusOr<StepResult> CudaBackend::Collect() {
  if (flights_.empty()) return absl::FailedPreconditionError("no step was submitted");
  const Flight flight = std::move(flights_.front());
  flights_.pop_front();
  status_.Update(FromCuda(cudaEventSynchronize(marks_[flight.marks].done), "a step on the GPU"));
  if (!status_.ok()) return status_;
  StepResult result = ResultOf(flight.receipt, host_results_[flight.staging]);
  result.device = TimesOf(flight);
  return result;
}

void CudaBackend::Do(const kernels::KernelError& error) {
  if (!error.ok()) status_.Update(FromKernel(error));
}

kernels::LaunchContext CudaBackend::Next() {
  return {.stream = stream_, .overlap_predecessor = launches_++ > 0};
}

char* CudaBackend::LayerPool(int32_t layer) const {
  return static_cast<char*>(kv_memory_.data()) + static_cast<size_t>(layer) *
                                                     static_cast<size_t>(spec_.limits.blocks) *
                                                     KvBlockBytes(shape_.kv);
}

// ---- Operations ---------------------------------------------------------------------------------

void CudaBackend::Embed(TableHandle handle, Tensor out) {
  const Table& table = tables_[static_cast<size_t>(handle)];
  kernels::EmbeddingArgs args;
  args.table = table.data;
  if (SumsOnPeers()) SpreadOverPeers(table.rows, &args);
  args.token_ids = work_.inputs.token_id;
  args.slot = work_.inputs.token_slot;
  args.slot_token = work_.slot_token;
  args.out = static_cast<bf16*>(out.data);
  args.rows = out.rows;
  args.vocabulary = table.rows;
  args.hidden = table.cols;
  Do(kernels::LaunchEmbedding(args, Next()));
}

void CudaBackend::RmsNorm(Tensor x, GainHandle gain, float epsilon, Tensor out) {
  kernels::RmsNormArgs args;
  args.residual = static_cast<bf16*>(x.data);
  args.gamma = gains_[static_cast<size_t>(gain)];
  args.out = {.packed = static_cast<bf16*>(out.data), .packed_rows = PaddedRows(x.rows)};
  args.rows = x.rows;
  args.hidden = x.cols;
  args.epsilon = epsilon;
  const bool sums = std::exchange(pending_sum_, false);
  if (sums && SumsOnPeers()) return SumOverPeers(args);
  if (sums) args.delta = work_.partials[partial_];
  Do(kernels::LaunchRmsNorm(args, Next()));
}

void CudaBackend::Multiply(Tensor x, LinearHandle weight, Tensor out, GemmEpilogue epilogue,
                           GemmOutput output) {
  Do(linears_->Multiply(
      weight,
      {.act = x.data, .rows = x.rows, .out = out.data, .epilogue = epilogue, .output = output},
      Next()));
}

void CudaBackend::Linear(Tensor x, LinearHandle weight, Tensor out) {
  const bool logits = out.use == ElementUse::kLogits;
  if (logits && spec_.group != nullptr) return LogitsOverRanks(x, weight, out);
  Multiply(x, weight, out, GemmEpilogue::kStore,
           logits ? GemmOutput::kRowMajorFloat : GemmOutput::kRowMajor);
}

void CudaBackend::LinearAdd(Tensor x, LinearHandle weight, Tensor residual) {
  if (spec_.group != nullptr) return LinearAddOverRanks(x, weight, residual);
  Multiply(x, weight, residual, GemmEpilogue::kAddResidual, GemmOutput::kRowMajor);
}

void CudaBackend::LinearSiluMul(Tensor x, LinearHandle gate_up, Tensor out) {
  Multiply(x, gate_up, out, GemmEpilogue::kSiluMul, GemmOutput::kActivation);
}

void CudaBackend::RopeAndStore(int32_t layer, Tensor qkv) {
  kernels::RopeKvWriteArgs args;
  args.qkv = static_cast<const bf16*>(qkv.data);
  args.position = work_.inputs.position;
  args.inverse_frequency = work_.inverse_frequency;
  args.block_table = work_.inputs.tables;
  args.table_row = work_.inputs.token_line;
  args.block_table_stride = StepInputs::TableStride(spec_.limits);
  args.q = work_.q;
  args.kv = LayerPool(layer);
  args.k_scale = KeyScales(layer);
  args.v_scale = ValueScales(layer);
  args.shape = shape_.kv;
  args.q_heads = shape_.q_heads;
  args.rows = qkv.rows;
  Do(kernels::LaunchRopeKvWrite(args, Next()));
}

void CudaBackend::Attention(int32_t layer, Tensor, Tensor out) {
  kernels::PagedAttentionArgs args;
  args.shape = shape_;
  args.q = work_.q;
  args.kv = LayerPool(layer);
  args.k_scale = KeyScales(layer);
  args.v_scale = ValueScales(layer);
  args.block_table = work_.inputs.tables;
  args.block_table_stride = StepInputs::TableStride(spec_.limits);
  args.kv_len = work_.inputs.kv_len;
  args.softmax_scale = 1.0f / std::sqrt(static_cast<float>(spec_.head_dim));
  args.out_packed = static_cast<bf16*>(out.data);
  args.packed_rows = PaddedRows(out.rows);
  args.history_is_settled = step_.history_is_settled;
  DecodeAttention(args);
  if (step_.prefill_tokens == 0) return;
  args.q += int64_t{step_.decode_tokens} * spec_.attention_heads * spec_.head_dim;
  args.block_table += int64_t{step_.decode_tokens} * args.block_table_stride;
  args.kv_len += step_.decode_tokens;
  args.out_packed += RowOffset(step_.decode_tokens);
  args.q_start = work_.inputs.q_start;
  args.rows = step_.prefill_rows;
  args.tokens = step_.prefill_tokens;
  Do(kernels::LaunchPrefillAttention(prefill_attention_, args, Next()));
}

void CudaBackend::DecodeAttention(const kernels::PagedAttentionArgs& all) {
  for (int32_t first = 0; first < step_.decode_tokens; first += kDecodeAttentionRows) {
    kernels::PagedAttentionArgs args = all;
    args.q += int64_t{first} * spec_.attention_heads * spec_.head_dim;
    args.block_table += int64_t{first} * args.block_table_stride;
    args.kv_len += first;
    args.out_packed += RowOffset(first);
    args.rows = std::min(kDecodeAttentionRows, step_.decode_tokens - first);
    args.workspace = work_.attention;
    Do(kernels::LaunchDecodeAttention(decode_attention_, args, Next()));
  }
}

// ---- Logits -------------------------------------------------------------------------------------

int32_t CudaBackend::LogitPasses() const {
  return 1 + (step_.scores + spec_.limits.max_sequences - 1) / spec_.limits.max_sequences;
}

Tensor CudaBackend::GatherLogitRows(int32_t pass, Tensor x, Tensor out) {
  AddPending(x);
  const int32_t width = spec_.limits.max_sequences;
  const int32_t first = (pass - 1) * width;
  if (pass == 0 && graphs_.is_to_be_cut()) {
    status_.Update(graphs_.Cut());
    launches_ = 0;  // a graph's first kernel has no predecessor to overlap
  } else if (pass == 0 && !step_.recordable && step_.masks > 0) {
    UploadMasks(*enqueuing_);
    launches_ = 0;
  }
  const Tensor rows =
      out.FirstRows(pass == 0 ? step_.samples : std::min(width, step_.scores - first));
  if (rows.rows == 0) return rows;
  // Rows of x by number are what an embedding is.
  kernels::EmbeddingArgs args;
  args.table = static_cast<const bf16*>(x.data);
  args.token_ids = pass == 0 ? work_.inputs.sample_token : work_.inputs.score_token + first;
  args.out = static_cast<bf16*>(rows.data);
  args.rows = rows.rows;
  args.vocabulary = x.rows;
  args.hidden = x.cols;
  Do(kernels::LaunchEmbedding(args, Next()));
  return rows;
}

void CudaBackend::Sample(int32_t pass, Tensor logits) {
  const int32_t first = (pass - 1) * spec_.limits.max_sequences;
  kernels::SampleArgs args;
  args.logits = logits.data;
  args.logits_stride = (logits.cols + 7) / 8 * 8;
  args.vocabulary = logits.cols;
  args.position = work_.inputs.sample_position;
  args.sampling = work_.slots.sampling;
  args.scratch = work_.sample_scratch;
  args.rows = logits.rows;
  if (pass == 0) {
    args.slot = work_.inputs.sample_slot;
    // Also where nobody has a mask: a recorded step serves steps that have some.
    args.mask = work_.inputs.mask;
    args.mask_line = work_.inputs.mask_line;
    args.token_use = work_.slots.token_use;
    args.bias = work_.slots.bias;
    args.history = work_.slots.history;
    args.history_stride = spec_.limits.context_tokens;
    args.breaker_end = work_.slots.breaker_end;
    args.repeats = work_.slots.repeats;
    args.breakers = work_.slots.breakers;
    args.phrases = work_.slots.phrases;
    args.slot_token = work_.slot_token;
    args.out = work_.results.samples;
    args.top = work_.results.sample_tops;
  } else {
    args.slot = work_.inputs.score_slot + first;
    args.score_token = work_.inputs.score_successor + first;
    args.out = work_.results.scores + first;
    args.top = work_.results.score_tops + int64_t{first} * kernels::kMaxTopLogprobs;
  }
  Do(kernels::LaunchSample(args, Next()));
}

absl::StatusOr<std::vector<float>> CudaBackend::ReadLogits(Tensor tensor) {
  const size_t stride = static_cast<size_t>((tensor.cols + 7) / 8 * 8);
  const size_t cols = static_cast<size_t>(tensor.cols);
  std::vector<float> values(static_cast<size_t>(tensor.rows) * cols);
  absl::Status read =
      FromCuda(cudaMemcpy2DAsync(values.data(), cols * sizeof(float), tensor.data,
                                 stride * sizeof(float), cols * sizeof(float),
                                 static_cast<size_t>(tensor.rows), cudaMemcpyDeviceToHost, stream_),
               "read-back of logits");
  read.Update(FromCuda(cudaStreamSynchronize(stream_), "read-back of logits"));
  if (!read.ok()) return read;
  return values;
}

}  // namespace behemoth::worker::cuda
