// StripeMap: which block computes which part of a matrix, and in which order partial sums are
// added.
//
// The steps of a matrix (one step = one tile of rows x one unit of k, numbered tile by tile) are
// cut into `blocks` stripes of equal length, one per block; a stripe may start and end inside a
// tile. A tile's result is the sum of its pieces in block order. The map depends on the shape of
// the matrix and the number of blocks, never on the number of activation rows: that is what makes
// the bits of a row independent of the batch. The prefill GEMM, whose blocks own whole tiles, cuts
// its sums at the same steps. A value; host and device.
#pragma once

#include <cstdint>

#include "kernels/common/bf16.h"

namespace behemoth::kernels {

struct StripeMap {
  int tiles = 0;
  int steps_per_tile = 0;
  int blocks = 0;

  // steps() * blocks < 2^32: 32-bit division, which the device does in a tenth of the time of the
  // 64-bit one.
  BEHEMOTH_HOST_DEVICE constexpr uint32_t steps() const {
    return static_cast<uint32_t>(tiles) * static_cast<uint32_t>(steps_per_tile);
  }
  // Stripe of `block` = [Begin(block), Begin(block + 1)).
  BEHEMOTH_HOST_DEVICE constexpr int Begin(int block) const {
    return static_cast<int>(steps() * static_cast<uint32_t>(block) / static_cast<uint32_t>(blocks));
  }
  // The block whose stripe holds `step`.
  BEHEMOTH_HOST_DEVICE constexpr int Owner(int step) const {
    return static_cast<int>(
        ((static_cast<uint32_t>(step) + 1) * static_cast<uint32_t>(blocks) - 1) / steps());
  }
  BEHEMOTH_HOST_DEVICE constexpr int FirstBlock(int tile) const {
    return Owner(tile * steps_per_tile);
  }
  BEHEMOTH_HOST_DEVICE constexpr int LastBlock(int tile) const {
    return Owner((tile + 1) * steps_per_tile - 1);
  }
  // A block has at most two pieces that are not whole tiles: one whose tile began before its stripe
  // and one whose tile begins in it and goes on.
};

}  // namespace behemoth::kernels
