#include "worker/sampling/stages.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "kernels/sampling/mass.h"
#include "kernels/sampling/stage_math.h"

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

BEHEMOTH_CLONES void ToMasses(std::span<const float> scaled, float largest, Masses masses) {
  for (size_t id = 0; id < scaled.size(); ++id) {
    masses[id] = kernels::MassOf(scaled[id] - largest);
  }
}

void MinP(Masses masses, float min_p) {
  KeepFrom(masses, kernels::MinPMass(min_p, *std::max_element(masses.begin(), masses.end())));
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

void TypicalP(Masses masses, float typical_p) {
  uint64_t total = 0, weighted = 0;
  for (const uint32_t mass : masses) {
    if (mass == 0) continue;
    total += mass;
    weighted += uint64_t{mass} * kernels::SurprisalOf(mass);
  }
  const auto mean = static_cast<int32_t>(weighted / total);
  const auto held = [&](int32_t distance) {
    const kernels::MassRange range = kernels::TypicalRange(mean, distance);
    uint64_t sum = 0;
    for (const uint32_t mass : masses) sum += mass >= range.least && mass <= range.most ? mass : 0;
    return sum;
  };
  const uint64_t wanted = kernels::NucleusMass(typical_p, total);
  int32_t low = 0, high = kernels::kMaxSurprisal;  // `high` holds enough
  while (low < high) {
    const int32_t middle = (low + high) / 2;
    if (held(middle) >= wanted) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  const kernels::MassRange range = kernels::TypicalRange(mean, high);
  for (uint32_t& mass : masses) mass = mass >= range.least && mass <= range.most ? mass : 0;
}

void Xtc(Masses masses, float threshold) {
  const uint64_t wanted = kernels::NucleusMass(threshold, Total(masses));
  uint32_t least = kernels::kUnitMass;  // of those that are likely enough
  for (const uint32_t mass : masses) {
    if (mass >= wanted) least = std::min(least, mass);
  }
  for (uint32_t& mass : masses) mass = mass <= least ? mass : 0;
}

TokenId Draw(std::span<const uint32_t> masses, uint64_t bits) {
  uint64_t rest = kernels::ScaleToTotal(bits, Total(masses));
  size_t id = 0;
  while (rest >= masses[id]) rest -= masses[id++];
  return static_cast<TokenId>(id);
}

}  // namespace behemoth::worker::sampling
