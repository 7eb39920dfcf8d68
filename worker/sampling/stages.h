// The truncating stages, each a function of the row alone. A removed token's logit is -inf.
// All keep at least one token: the largest is never removed. Equal logits share one fate.
#pragma once

#include <span>
#include <vector>

namespace behemoth::worker::sampling {

// (logit - largest) / temperature: shifted first, so that no temperature overflows.
void Temperature(std::span<float> logits, float temperature);
// Keeps tokens with probability >= min_p * the largest probability.
void MinP(std::span<float> logits, float min_p);
// Keeps tokens not below the k-th largest logit: ties at the border stay.
void TopK(std::span<float> logits, int k, std::vector<float>& scratch);
// Keeps a token if the tokens strictly more likely than it hold less than `top_p` of the mass.
void TopP(std::span<float> logits, float top_p, std::vector<float>& scratch);

}  // namespace behemoth::worker::sampling
