// Whether draws follow a distribution: Pearson's statistic against its quantile.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

namespace behemoth::worker {

// `hits` of `draws` against `probabilities`, id by id; what was to be removed must never be hit.
// Rare ids are pooled. `deviations`: the quantile as a normal deviate (3.09 is p = 0.001), by the
// approximation of Wilson and Hilferty.
inline void ExpectFollows(const std::vector<double>& probabilities,
                          const std::vector<int32_t>& hits, int32_t draws, double deviations,
                          const std::string& what) {
  double chi = 0, pooled = 0;
  int32_t bins = 0, pooled_hits = 0;
  for (size_t id = 0; id < hits.size(); ++id) {
    const double expected = probabilities[id] * draws;
    EXPECT_FALSE(probabilities[id] == 0 && hits[id] > 0) << what << " id " << id;
    if (expected < 5) {
      pooled += expected;
      pooled_hits += hits[id];
      continue;
    }
    chi += (hits[id] - expected) * (hits[id] - expected) / expected;
    ++bins;
  }
  if (pooled >= 1) {
    chi += (pooled_hits - pooled) * (pooled_hits - pooled) / pooled;
    ++bins;
  }
  const double freedom = std::max(1, bins - 1);
  const double root = 1 - 2 / (9 * freedom) + deviations * std::sqrt(2 / (9 * freedom));
  EXPECT_LT(chi, freedom * root * root * root) << what;
}

}  // namespace behemoth::worker
