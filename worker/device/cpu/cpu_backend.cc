// The reference backend: float activations, a step done when RunStep returns.
#include <absl/strings/str_cat.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <memory>
#include <utility>

#include "worker/device/backend.h"
#include "worker/device/cpu/cpu_linear.h"
#include "worker/device/cpu/paged_cache.h"
#include "worker/device/cpu/step_inputs.h"
#include "worker/device/cpu/thread_team.h"
#include "worker/device/cpu/vector_loops.h"
#include "worker/device/device.h"
#include "worker/device/host_memory.h"
#include "worker/device/plan_check.h"
#include "worker/sampling/sampler.h"

namespace behemoth::worker {
namespace {

using cpu::CpuLinear;
using cpu::LogitRow;
using cpu::StepInputs;

float* Floats(const Tensor& tensor) { return static_cast<float*>(tensor.data); }

float* Row(const Tensor& tensor, int64_t row) { return Floats(tensor) + row * tensor.cols; }

class CpuBackend : public Backend {
 public:
  explicit CpuBackend(const BackendSpec& spec)
      : spec_(spec),
        team_(spec.threads),
        cache_(spec),
        slots_(spec.limits.max_sequences, SamplerState(spec.limits.vocabulary_size)) {}

  absl::StatusOr<Tensor> Allocate(int32_t rows, int32_t cols, ElementUse use) override {
    memory_.emplace_back(static_cast<size_t>(rows) * cols);
    return Tensor{memory_.back().data(), rows, cols, use};
  }

  absl::StatusOr<LinearHandle> AddLinear(std::vector<LinearWeights> parts, LinearUse) override {
    absl::StatusOr<CpuLinear> linear = CpuLinear::Make(std::move(parts));
    if (!linear.ok()) return linear.status();
    return Keep(*std::move(linear));
  }

  absl::StatusOr<GainHandle> AddGain(const DenseMatrix& stored) override {
    DenseMatrix gain = stored;
    if (absl::Status loaded = gain.bytes.Load(); !loaded.ok()) return loaded;
    gains_.push_back(FloatsOf(gain));
    return static_cast<GainHandle>(gains_.size() - 1);
  }

  absl::StatusOr<TableHandle> AddTable(DenseMatrix table) override {
    if (absl::Status loaded = table.bytes.Load(); !loaded.ok()) return loaded;
    tables_.push_back(cpu::WithoutFloat16(std::move(table)));
    return static_cast<TableHandle>(tables_.size() - 1);
  }

  absl::StatusOr<LinearHandle> TableAsLinear(TableHandle table) override {
    const DenseMatrix& whole = tables_[static_cast<size_t>(table)];
    if (spec_.group == nullptr) return Keep(CpuLinear(&whole, 0, whole.rows));
    const int32_t rows = whole.rows / spec_.group->size();
    return Keep(CpuLinear(&whole, spec_.group->rank() * rows, rows));
  }

  absl::Status FinishWeights() override { return absl::OkStatus(); }

  absl::Status RunStep(const StepPlan& plan,
                       absl::FunctionRef<void(int32_t tokens)> forward) override {
    if (absl::Status legal = CheckPlan(plan, spec_.limits); !legal.ok()) return legal;
    for (const SlotBinding& binding : plan.bindings) {
      slots_[static_cast<size_t>(binding.slot)].Bind(binding);
    }
    for (const BlockCopy& copy : plan.copies) cache_.Copy(copy.from, copy.to);
    if (absl::Status loaded = step_.Load(plan, spec_, slots_); !loaded.ok()) return loaded;
    if (!plan.token_ids.empty()) forward(static_cast<int32_t>(plan.token_ids.size()));
    if (!ranks_status_.ok()) return ranks_status_;
    results_.push_back(std::move(step_.result));
    return absl::OkStatus();
  }

  absl::StatusOr<StepResult> Collect() override {
    if (results_.empty()) return absl::FailedPreconditionError("no step was submitted");
    StepResult result = std::move(results_.front());
    results_.pop_front();
    return result;
  }

  void Embed(TableHandle handle, Tensor out) override {
    const DenseMatrix& table = tables_[static_cast<size_t>(handle)];
    for (int64_t t = 0; t < out.rows; ++t) {
      const float* row = cpu::DenseRow(table, step_.token_ids[t], Row(out, t));
      if (row != Row(out, t)) std::copy_n(row, out.cols, Row(out, t));
    }
  }

  void RmsNorm(Tensor x, GainHandle handle, float epsilon, Tensor out) override {
    const float* gain = gains_[static_cast<size_t>(handle)].data();
    for (int64_t t = 0; t < x.rows; ++t) {
      const float* in = Row(x, t);
      const float mean = cpu::SumOfSquares(in, x.cols) / static_cast<float>(x.cols);
      const float scale = 1.0f / std::sqrt(mean + epsilon);
      float* result = Row(out, t);
      for (int32_t c = 0; c < x.cols; ++c) result[c] = gain[c] * (in[c] * scale);
    }
  }

  void Linear(Tensor x, LinearHandle weight, Tensor out) override {
    if (spec_.group != nullptr && out.use == ElementUse::kLogits) return Logits(x, weight, out);
    RunLinear(x, weight, Floats(out), /*accumulate=*/false);
  }

  void LinearAdd(Tensor x, LinearHandle weight, Tensor residual) override {
    if (spec_.group == nullptr) {
      RunLinear(x, weight, Floats(residual), /*accumulate=*/true);
      return;
    }
    const size_t count = static_cast<size_t>(residual.rows) * residual.cols;
    part_.resize(std::max(part_.size(), count));
    RunLinear(x, weight, part_.data(), /*accumulate=*/false);
    ranks_status_.Update(
        spec_.group->AllReduce(part_.data(), count, SumElement::kFloat, /*stream=*/nullptr));
    for (size_t i = 0; i < count; ++i) Floats(residual)[i] += part_[i];
  }

  void LinearSiluMul(Tensor x, LinearHandle gate_up, Tensor out) override {
    gate_up_.resize(std::max(gate_up_.size(), size_t{2} * out.cols * spec_.limits.max_step_tokens));
    RunLinear(x, gate_up, gate_up_.data(), /*accumulate=*/false);
    for (int64_t t = 0; t < x.rows; ++t) {
      const float* gate = gate_up_.data() + 2 * t * out.cols;
      const float* up = gate + out.cols;
      float* result = Row(out, t);
      for (int32_t c = 0; c < out.cols; ++c) {
        result[c] = gate[c] / (1.0f + std::exp(-gate[c])) * up[c];
      }
    }
  }

  void RopeAndStore(int32_t layer, Tensor qkv) override {
    const int32_t rotated_heads = spec_.attention_heads + spec_.kv_heads;
    const int32_t half = spec_.head_dim / 2;
    for (int64_t t = 0; t < qkv.rows; ++t) {
      const float* cosine = step_.cosines.data() + t * half;
      const float* sine = step_.sines.data() + t * half;
      for (int32_t h = 0; h < rotated_heads; ++h) {
        float* head = Row(qkv, t) + int64_t{h} * spec_.head_dim;
        for (int32_t i = 0; i < half; ++i) {
          const float first = head[i], second = head[i + half];
          head[i] = first * cosine[i] - second * sine[i];
          head[i + half] = second * cosine[i] + first * sine[i];
        }
      }
      const float* k = Row(qkv, t) + int64_t{spec_.attention_heads} * spec_.head_dim;
      cache_.Store(layer, step_.places[t], k, k + int64_t{spec_.kv_heads} * spec_.head_dim);
    }
  }

  void Attention(int32_t layer, Tensor qkv, Tensor out) override {
    cache_.Attend(team_, layer, step_.places, Floats(qkv), Floats(out));
  }

  int32_t LogitPasses() const override { return static_cast<int32_t>(step_.passes.size()); }

  Tensor GatherLogitRows(int32_t pass, Tensor x, Tensor out) override {
    const std::vector<LogitRow>& rows = step_.passes[pass];
    for (size_t i = 0; i < rows.size(); ++i) {
      std::copy_n(Row(x, rows[i].token), x.cols, Row(out, static_cast<int64_t>(i)));
    }
    return out.FirstRows(static_cast<int32_t>(rows.size()));
  }

  void Sample(int32_t pass, Tensor logits) override {
    const std::vector<LogitRow>& rows = step_.passes[pass];
    team_.Run(static_cast<int32_t>(rows.size()), [&](int32_t, int32_t begin, int32_t end) {
      for (int32_t i = begin; i < end; ++i) {
        const std::span<float> row(Row(logits, i), static_cast<size_t>(logits.cols));
        const LogitRow& wanted = rows[i];
        if (pass == 0) {
          const std::span<const uint32_t> allowed =
              wanted.mask ? std::span<const uint32_t>(*wanted.mask) : std::span<const uint32_t>();
          SamplerState& slot = slots_[static_cast<size_t>(wanted.slot)];
          step_.result.samples[wanted.result] = slot.Sample(row, wanted.position, allowed);
        } else {
          step_.result.prompt_logprobs[wanted.prompt][wanted.result] =
              ScoreToken(row, wanted.successor, wanted.top_logprobs);
        }
      }
    });
  }

  absl::StatusOr<std::vector<float>> ReadLogits(Tensor tensor) override {
    const float* first = Floats(tensor);
    return std::vector<float>(first, first + static_cast<size_t>(tensor.rows) * tensor.cols);
  }

 private:
  LinearHandle Keep(CpuLinear linear) {
    linears_.push_back(std::move(linear));
    const size_t in = static_cast<size_t>(linears_.back().in());
    row_scratch_.resize(std::max(row_scratch_.size(), in * team_.size()));
    gathered_.resize(std::max(gathered_.size(), in * spec_.limits.max_step_tokens));
    return static_cast<LinearHandle>(linears_.size() - 1);
  }

  // Every rank gets every rank's: [ranks][rows, vocabulary / ranks], put side by side.
  void Logits(Tensor x, LinearHandle weight, Tensor out) {
    const int32_t ranks = spec_.group->size(), cols = out.cols / ranks;
    const size_t count = static_cast<size_t>(out.rows) * cols;
    part_.resize(std::max(part_.size(), count));
    all_parts_.resize(std::max(all_parts_.size(), count * ranks));
    RunLinear(x, weight, part_.data(), /*accumulate=*/false);
    ranks_status_.Update(spec_.group->AllGather(part_.data(), count * sizeof(float),
                                                all_parts_.data(), /*stream=*/nullptr));
    for (int32_t rank = 0; rank < ranks; ++rank) {
      for (int64_t row = 0; row < out.rows; ++row) {
        const float* from = all_parts_.data() + (rank * int64_t{out.rows} + row) * cols;
        std::copy_n(from, cols, Row(out, row) + int64_t{rank} * cols);
      }
    }
  }

  void RunLinear(Tensor x, LinearHandle weight, float* y, bool accumulate) {
    linears_[static_cast<size_t>(weight)].Run(team_, {.x = Floats(x),
                                                      .tokens = x.rows,
                                                      .y = y,
                                                      .accumulate = accumulate,
                                                      .gathered = gathered_.data(),
                                                      .rows = row_scratch_.data()});
  }

  const BackendSpec spec_;
  cpu::ThreadTeam team_;
  cpu::PagedCache cache_;
  std::vector<SamplerState> slots_;
  std::deque<std::vector<float>> memory_;
  std::deque<CpuLinear> linears_;
  std::deque<DenseMatrix> tables_;  // CpuLinear may point into it: a deque does not move
  std::vector<std::vector<float>> gains_;
  std::vector<float> row_scratch_, gathered_, gate_up_;
  std::vector<float> part_, all_parts_;  // of a product that the ranks share
  absl::Status ranks_status_;
  StepInputs step_;
  std::deque<StepResult> results_;
};

class CpuDevice : public Device {
 public:
  explicit CpuDevice(int32_t ranks) : ranks_(static_cast<uint64_t>(ranks)) {}
  std::string name() const override { return "cpu"; }
  DeviceMemory memory() const override {
    const DeviceMemory host = HostMemory();
    return {.total_bytes = host.total_bytes / ranks_,
            .available_bytes = host.available_bytes / ranks_};
  }
  int32_t tokens_per_block() const override { return cpu::kTokensPerBlock; }
  int32_t pipeline_depth() const override { return 1; }
  KvType default_kv_type() const override { return KvType::kFloat32; }
  int32_t default_step_tokens() const override { return 512; }
  // The host is shared with others: six chats of 8,192 tokens of the tiny model.
  uint64_t default_kv_bytes() const override { return (uint64_t{512} << 20) / ranks_; }

  absl::StatusOr<DeviceNeeds> Needs(const ModelShape& shape,
                                    const BackendSpec& spec) const override {
    if (spec.kv_type == KvType::kFp8) {
      return absl::UnimplementedError("kv_cache_dtype: the cpu backend has float32 and bf16");
    }
    return DeviceNeeds{.weight_bytes = shape.stored_bytes,
                       .block_bytes = cpu::PagedCache::BlockBytes(spec),
                       .activation_element_bytes = sizeof(float),
                       .token_rows = spec.limits.max_step_tokens,
                       .sequence_rows = spec.limits.max_sequences};
  }

  absl::StatusOr<std::unique_ptr<Backend>> Start(const ModelShape&,
                                                 const BackendSpec& spec) const override {
    return std::make_unique<CpuBackend>(spec);
  }

 private:
  const uint64_t ranks_;
};

}  // namespace

std::unique_ptr<Device> OpenCpu(int32_t ranks) { return std::make_unique<CpuDevice>(ranks); }

}  // namespace behemoth::worker
