// The cpu device with every operation's rounding made as large as it may be: noise behind each
// operation, sized from its k and epsilon. What the network makes of it is how far two right
// computations in float may be apart, amplification and cancellation included: the network itself
// carries the errors on, nobody has to guess how.
//
// Model of one rounding. A float operation errs by a factor 1 + d, |d| <= u = 2^-24, of no
// preferred sign: variance u^2 / 3. A sum of n terms of random sign rounds n partial sums, whose
// squares grow from 0 to the result's: variance n u^2 / 6 of the result's size squared. Both sides
// sum in at least 8 lanes (AVX2; ours in 32), so n = k / 8 + 8 of the longest chain and the tree
// behind it. Errors of two sides are independent: the difference has sqrt(2) of one side's. The
// result's size is the row's root mean square, or the element's own where that is larger: a sum
// that cancels to nothing has rounded like its neighbours.
//
// A device that computes in bf16 (worker/device/cuda) adds roundings of its own, of one side only
// and 2^15 times as large: u = 2^-9, variance u^2 / 3 of an element squared. What an operation
// stores is rounded once: norm, qkv, rotated q and k, attention, SiLU's product, the residual sum.
// Each weight (int4 times scale) and each probability of attention is rounded as it enters a
// product: k independent errors, whose sum is u / sqrt(3) of the dot product's own size.
//
// Ranks that share a model round each one's part of a sum, and then every partial sum of the parts:
// of n parts of equal variance, n + (2 + 3 + ... + n) shares of 1/n of the result's. In float that
// is no more than the one sum's chain, which is n times as long; bf16 stores each.
#pragma once

#include <cstdint>
#include <memory>

#include "worker/device/device.h"

namespace behemoth::worker {

enum class Arithmetic { kFloat, kBf16 };

// Starts backends of the cpu that add the noise; the same seed, the same noise. Activations are
// floats, row-major. For tests, one thread.
std::unique_ptr<Device> OpenRoundingCpu(Arithmetic arithmetic, uint32_t seed, int32_t ranks = 1);

}  // namespace behemoth::worker
