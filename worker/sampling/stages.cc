#include "worker/sampling/stages.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "kernels/sampling/mass.h"

// The arithmetic is of fused multiply-adds: one instruction where the processor has it, a library
// call with the same result where not. Sanitizers run before the loader's choice may.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define BEHEMOTH_CLONES __attribute__((target_clones("arch=haswell", "default")))
#else
#define BEHEMOTH_CLONES
#endif

namespace behemoth::worker::sampling {
namespace {

void KeepFrom(Masses masses, uint32_t least) {
  for (uint32_t& mass : masses) {
    if (mass < least) mass = 0;
  }
}

uint64_t Total(std::span<const uint32_t> masses) {
  return std::accumulate(masses.begin(), masses.end(), uint64_t{0});
}

}  // namespace

BEHEMOTH_CLONES void ToMasses(std::span<const float> logits, float largest, float temperature,
                              Masses masses) {
  const float inverse_temperature = 1.0f / temperature;
  for (size_t id = 0; id < logits.size(); ++id) {
    masses[id] = kernels::MassOf((logits[id] - largest) * inverse_temperature);
  }
}

void MinP(Masses masses, float min_p) {
  const float smallest = min_p * static_cast<float>(kernels::kUnitMass);
  KeepFrom(masses, static_cast<uint32_t>(smallest));
}

void TopK(Masses masses, int32_t k, std::vector<uint32_t>& scratch) {
  if (static_cast<size_t>(k) >= masses.size()) return;
  scratch.assign(masses.begin(), masses.end());
  std::nth_element(scratch.begin(), scratch.begin() + (k - 1), scratch.end(), std::greater<>());
  KeepFrom(masses, scratch[static_cast<size_t>(k) - 1]);
}

void TopP(Masses masses, float top_p, std::vector<uint32_t>& scratch) {
  scratch.clear();
  for (const uint32_t mass : masses) {
    if (mass != 0) scratch.push_back(mass);
  }
  const uint64_t wanted = kernels::NucleusMass(top_p, Total(scratch));
  // A heap, not a sort: the mass is nearly always in the first few dozen tokens.
  std::make_heap(scratch.begin(), scratch.end());
  uint64_t held = 0;
  uint32_t least = 0;
  while (held < wanted) {
    least = scratch.front();
    held += least;
    std::pop_heap(scratch.begin(), scratch.end());
    scratch.pop_back();
  }
  KeepFrom(masses, least);
}

TokenId Draw(std::span<const uint32_t> masses, uint64_t bits) {
  uint64_t rest = kernels::ScaleToTotal(bits, Total(masses));
  size_t id = 0;
  while (rest >= masses[id]) rest -= masses[id++];
  return static_cast<TokenId>(id);
}

}  // namespace behemoth::worker::sampling
