#include "worker/sampling/stages.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <limits>

namespace behemoth::worker::sampling {
namespace {

constexpr float kRemoved = -std::numeric_limits<float>::infinity();

float Largest(std::span<const float> logits) {
  return *std::max_element(logits.begin(), logits.end());
}

void KeepFrom(std::span<float> logits, float least) {
  for (float& logit : logits) {
    if (logit < least) logit = kRemoved;
  }
}

}  // namespace

void Temperature(std::span<float> logits, float temperature) {
  const float largest = Largest(logits);
  for (float& logit : logits) logit = (logit - largest) / temperature;
}

void MinP(std::span<float> logits, float min_p) {
  KeepFrom(logits, Largest(logits) + std::log(min_p));
}

void TopK(std::span<float> logits, int k, std::vector<float>& scratch) {
  if (static_cast<size_t>(k) >= logits.size()) return;
  scratch.assign(logits.begin(), logits.end());
  std::nth_element(scratch.begin(), scratch.begin() + (k - 1), scratch.end(), std::greater<>());
  KeepFrom(logits, scratch[k - 1]);
}

void TopP(std::span<float> logits, float top_p, std::vector<float>& scratch) {
  const float largest = Largest(logits);
  double total = 0;
  scratch.clear();
  for (const float logit : logits) {
    if (logit == kRemoved) continue;
    total += std::exp(static_cast<double>(logit - largest));
    scratch.push_back(logit);
  }
  // A heap, not a sort: the mass is nearly always in the first few dozen tokens.
  std::make_heap(scratch.begin(), scratch.end());
  const double wanted = static_cast<double>(top_p) * total;
  double above = 0;
  float least = largest;
  while (!scratch.empty() && above < wanted) {
    least = scratch.front();
    while (!scratch.empty() && scratch.front() == least) {
      above += std::exp(static_cast<double>(least - largest));
      std::pop_heap(scratch.begin(), scratch.end());
      scratch.pop_back();
    }
  }
  KeepFrom(logits, least);
}

}  // namespace behemoth::worker::sampling
