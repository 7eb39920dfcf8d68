#include "worker/checkpoint/random_weights.h"

#include <absl/strings/str_cat.h>

#include <cmath>
#include <utility>
#include <vector>

#include "worker/checkpoint/element.h"

namespace behemoth::worker {
namespace {

// SplitMix64 (Steele, Lea, Flood 2014): any seed is a good seed, 64 bits a call.
class SplitMix {
 public:
  explicit SplitMix(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

 private:
  uint64_t state_;
};

}  // namespace

RandomWeights::RandomWeights(uint64_t seed, QuantizationConfig scheme)
    : seed_(seed), scheme_(std::move(scheme)) {}

uint64_t RandomWeights::SeedOf(const std::string& name) const {
  uint64_t hash = 0xcbf29ce484222325u ^ seed_;
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return hash;
}

absl::StatusOr<DenseMatrix> RandomWeights::ReadDense(const std::string& name, int32_t rows,
                                                     int32_t cols) {
  std::vector<uint16_t> elements(static_cast<size_t>(rows) * cols);
  const bool is_gain = rows == 1;
  // Uniform on +-a has variance a^2 / 3: a row of dot products keeps its input's variance.
  const float limit = std::sqrt(3.0f / static_cast<float>(cols));
  SplitMix random(SeedOf(name));
  for (uint16_t& element : elements) {
    const float uniform = static_cast<float>(random.Next() >> 40) * 0x1p-23f - 1.0f;
    element = Bfloat16FromFloat(is_gain ? 1.0f + 0.1f * uniform : limit * uniform);
  }
  return MatrixOf(rows, cols, std::move(elements));
}

absl::StatusOr<LinearWeights> RandomWeights::ReadLinear(const std::string& module, int32_t out,
                                                        int32_t in) {
  const std::optional<LinearScheme> scheme = scheme_.SchemeOf(module);
  if (!scheme) {
    absl::StatusOr<DenseMatrix> weight = ReadDense(module + ".weight", out, in);
    if (!weight.ok()) return weight.status();
    return LinearWeights{out, in, *std::move(weight)};
  }
  Int4Weights weights;
  weights.group_size = scheme->group_size < 0 ? in : scheme->group_size;
  if (weights.group_size % 8 != 0 || in % weights.group_size != 0) {
    return absl::InvalidArgumentError(absl::StrCat(module, ": groups of ", weights.group_size,
                                                   " do not tile ", in, " inputs in words of 8"));
  }
  weights.seed = SeedOf(module);
  return LinearWeights{out, in, std::move(weights)};
}

}  // namespace behemoth::worker
