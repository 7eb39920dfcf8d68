// The stages after temperature, each a function of one row of masses.
//
// A mass is a probability as an integer: round(2^31 exp(logit - largest)) of the logits as they are
// after temperature and smoothing, 0 for a token that is removed. Sums of integers are exact in any
// order, so that every backend keeps the same tokens and draws the same one; kernels/sampling has
// the arithmetic, and the device's own. All stages keep at least one token. Equal masses share one
// fate.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "worker/ids.h"

namespace behemoth::worker::sampling {

using Masses = std::span<uint32_t>;

// `scaled` is as long as `masses`; `largest` is the largest of it, finite.
void ToMasses(std::span<const float> scaled, float largest, Masses masses);
// Keeps masses >= min_p * the largest.
void MinP(Masses masses, float min_p);
// Keeps masses not below the k-th largest, k >= 1: ties at the border stay.
void TopK(Masses masses, int32_t k, std::vector<uint32_t>& scratch);
// Keeps a mass if those strictly larger than it hold less than `top_p` of the total.
void TopP(Masses masses, float top_p, std::vector<uint32_t>& scratch);
// Keeps those whose surprisal is nearest the mean one and that hold `typical_p` of the total.
void TypicalP(Masses masses, float typical_p);
// Of at least two masses >= threshold * the total keeps the least, and all below it.
void Xtc(Masses masses, float threshold);
// The first id, ascending, whose running sum exceeds `bits` / 2^64 of the total.
TokenId Draw(std::span<const uint32_t> masses, uint64_t bits);

}  // namespace behemoth::worker::sampling
