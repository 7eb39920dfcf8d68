#include "tests/golden/worker/rounding_device.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <span>
#include <utility>

namespace behemoth::worker {
namespace {

// Standard deviations, as shares of a result's size.
class Roundings {
 public:
  Roundings(Arithmetic arithmetic, int32_t ranks)
      : narrow_(arithmetic == Arithmetic::kBf16 ? 0x1p-9f / std::sqrt(3.0f) : 0),
        ranks_(static_cast<float>(ranks)) {}

  // A float sum over k, both sides together.
  float Sum(int32_t k) const {
    const float chain = static_cast<float>(k) / 8 + 8;
    return kRounding * std::sqrt(2 * chain / 6);
  }
  // The same where one factor of each product is rounded as it enters.
  float Product(int32_t k) const { return std::hypot(Sum(k), narrow_); }
  // The same, summed over the ranks.
  float SharedProduct(int32_t k) const {
    if (ranks_ == 1) return Product(k);
    return std::hypot(Product(k),
                      narrow_ * std::sqrt(1 + (ranks_ * (ranks_ + 1) / 2 - 1) / ranks_));
  }
  // `count` single operations on an element, both sides together, and the store behind them.
  float Stored(int32_t count) const {
    return std::hypot(kRounding * std::sqrt(2 * static_cast<float>(count) / 3), narrow_);
  }

 private:
  static constexpr float kRounding = 0x1p-24f;
  const float narrow_, ranks_;
};

class RoundingBackend final : public Backend {
 public:
  RoundingBackend(std::unique_ptr<Backend> cpu, const BackendSpec& spec, Arithmetic arithmetic,
                  uint32_t seed, int32_t ranks)
      : cpu_(std::move(cpu)), spec_(spec), roundings_(arithmetic, ranks), random_(seed) {}

  absl::StatusOr<Tensor> Allocate(int32_t rows, int32_t cols, ElementUse use) override {
    return cpu_->Allocate(rows, cols, use);
  }
  absl::StatusOr<LinearHandle> AddLinear(std::vector<LinearWeights> parts, LinearUse use) override {
    return cpu_->AddLinear(std::move(parts), use);
  }
  absl::StatusOr<GainHandle> AddGain(const DenseMatrix& gain) override {
    return cpu_->AddGain(gain);
  }
  absl::StatusOr<TableHandle> AddTable(DenseMatrix table) override {
    return cpu_->AddTable(std::move(table));
  }
  absl::StatusOr<LinearHandle> TableAsLinear(TableHandle table) override {
    return cpu_->TableAsLinear(table);
  }
  absl::Status FinishWeights() override { return cpu_->FinishWeights(); }
  absl::Status RunStep(const StepPlan& plan, absl::FunctionRef<void(int32_t)> forward) override {
    return cpu_->RunStep(plan, forward);
  }
  absl::StatusOr<StepResult> Collect() override { return cpu_->Collect(); }

  // Exact: a copy.
  void Embed(TableHandle table, Tensor out) override { cpu_->Embed(table, out); }

  // The sum's error is the whole row's; root, quotient and gain are each element's.
  void RmsNorm(Tensor x, GainHandle gain, float epsilon, Tensor out) override {
    cpu_->RmsNorm(x, gain, epsilon, out);
    for (int32_t t = 0; t < out.rows; ++t) {
      const float common = 1 + roundings_.Sum(x.cols) * Draw();
      for (float& value : Row(out, t)) value *= common * (1 + roundings_.Stored(3) * Draw());
    }
  }

  void Linear(Tensor x, LinearHandle weight, Tensor out) override {
    cpu_->Linear(x, weight, out);
    AddNoise(out, roundings_.Product(x.cols));
    Store(out, 0);
  }

  // The dot products' size is that of what they add, not of the residual stream; the addition's is.
  void LinearAdd(Tensor x, LinearHandle weight, Tensor residual) override {
    const std::span<const float> all = Elements(residual);
    const std::vector<float> before(all.begin(), all.end());
    cpu_->LinearAdd(x, weight, residual);
    for (int32_t t = 0; t < residual.rows; ++t) {
      const std::span<float> row = Row(residual, t);
      const float* const old = before.data() + int64_t{t} * residual.cols;
      std::vector<float> added(row.size());
      for (size_t i = 0; i < row.size(); ++i) added[i] = row[i] - old[i];
      const float size = RootMeanSquare(added);
      for (size_t i = 0; i < row.size(); ++i) {
        row[i] += roundings_.SharedProduct(x.cols) * std::max(size, std::fabs(added[i])) * Draw() +
                  roundings_.Stored(1) * std::fabs(row[i]) * Draw();
      }
    }
  }

  // Two dot products meet in each element; exp, quotient and two products follow.
  void LinearSiluMul(Tensor x, LinearHandle gate_up, Tensor out) override {
    cpu_->LinearSiluMul(x, gate_up, out);
    AddNoise(out, std::sqrt(2.0f) * roundings_.Product(x.cols));
    Store(out, 4);
  }

  // Three operations rotate an element. Noise on q stands for the scores' own sums as well: over
  // one head, of the size of q times that of k.
  void RopeAndStore(int32_t layer, Tensor qkv) override {
    Store(qkv, 3);
    AddNoise(qkv, roundings_.Sum(spec_.head_dim));
    cpu_->RopeAndStore(layer, qkv);
  }

  // The sum over the context, and exp and quotient of its weights.
  void Attention(int32_t layer, Tensor qkv, Tensor out) override {
    cpu_->Attention(layer, qkv, out);
    AddNoise(out, roundings_.Product(spec_.limits.context_tokens));
    Store(out, 2);
  }

  int32_t LogitPasses() const override { return cpu_->LogitPasses(); }
  Tensor GatherLogitRows(int32_t pass, Tensor x, Tensor out) override {
    return cpu_->GatherLogitRows(pass, x, out);
  }
  void Sample(int32_t pass, Tensor logits) override { cpu_->Sample(pass, logits); }
  absl::StatusOr<std::vector<float>> ReadLogits(Tensor tensor) override {
    return cpu_->ReadLogits(tensor);
  }

 private:
  static std::span<float> Elements(Tensor tensor) {
    return {static_cast<float*>(tensor.data), static_cast<size_t>(tensor.rows) * tensor.cols};
  }
  static std::span<float> Row(Tensor tensor, int32_t row) {
    return Elements(tensor).subspan(static_cast<size_t>(row) * tensor.cols, tensor.cols);
  }
  static float RootMeanSquare(std::span<const float> row) {
    double squares = 0;
    for (const float value : row) squares += static_cast<double>(value) * value;
    return static_cast<float>(std::sqrt(squares / static_cast<double>(row.size())));
  }
  void AddNoise(Tensor out, float share) {
    for (int32_t t = 0; t < out.rows; ++t) {
      const float size = RootMeanSquare(Row(out, t));
      for (float& value : Row(out, t)) value += share * std::max(size, std::fabs(value)) * Draw();
    }
  }
  void Store(Tensor out, int32_t operations) {
    const float share = roundings_.Stored(operations);
    for (float& value : Elements(out)) value *= 1 + share * Draw();
  }
  float Draw() { return normal_(random_); }

  const std::unique_ptr<Backend> cpu_;
  const BackendSpec spec_;
  const Roundings roundings_;
  std::mt19937 random_;
  std::normal_distribution<float> normal_;
};

class RoundingDevice final : public Device {
 public:
  RoundingDevice(Arithmetic arithmetic, uint32_t seed, int32_t ranks)
      : cpu_(OpenCpu()), arithmetic_(arithmetic), seed_(seed), ranks_(ranks) {}
  std::string name() const override { return "cpu with noise"; }
  DeviceMemory memory() const override { return cpu_->memory(); }
  int32_t tokens_per_block() const override { return cpu_->tokens_per_block(); }
  int32_t pipeline_depth() const override { return cpu_->pipeline_depth(); }
  KvType default_kv_type() const override { return cpu_->default_kv_type(); }
  int32_t default_step_tokens() const override { return cpu_->default_step_tokens(); }
  uint64_t default_kv_bytes() const override { return cpu_->default_kv_bytes(); }
  absl::StatusOr<DeviceNeeds> Needs(const ModelShape& shape,
                                    const BackendSpec& spec) const override {
    return cpu_->Needs(shape, spec);
  }
  absl::StatusOr<std::unique_ptr<Backend>> Start(const ModelShape& shape,
                                                 const BackendSpec& spec) const override {
    auto backend = cpu_->Start(shape, spec);
    if (!backend.ok()) return backend.status();
    return std::make_unique<RoundingBackend>(*std::move(backend), spec, arithmetic_, seed_, ranks_);
  }

 private:
  const std::unique_ptr<Device> cpu_;
  const Arithmetic arithmetic_;
  const uint32_t seed_;
  const int32_t ranks_;
};

}  // namespace

std::unique_ptr<Device> OpenRoundingCpu(Arithmetic arithmetic, uint32_t seed, int32_t ranks) {
  return std::make_unique<RoundingDevice>(arithmetic, seed, ranks);
}

}  // namespace behemoth::worker
