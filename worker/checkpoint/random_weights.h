// Seeded weights of the right shapes, for capacity and speed tests without the files. A tensor's
// values depend on the seed and its name only. Quantized where `scheme` says so, so that the bytes
// and kernels are those of the real checkpoint; scaled so that activations stay in range.
#pragma once

#include <cstdint>
#include <string>

#include "worker/checkpoint/quantization_config.h"
#include "worker/checkpoint/weight_source.h"

namespace behemoth::worker {

class RandomWeights : public WeightSource {
 public:
  RandomWeights(uint64_t seed, QuantizationConfig scheme);
  absl::StatusOr<DenseMatrix> ReadDense(const std::string& name, int32_t rows,
                                        int32_t cols) override;
  absl::StatusOr<LinearWeights> ReadLinear(const std::string& module, int32_t out,
                                           int32_t in) override;

 private:
  uint64_t SeedOf(const std::string& name) const;

  uint64_t seed_;
  QuantizationConfig scheme_;
};

}  // namespace behemoth::worker
