// Requests that use every sampler: each alone, and mixtures. The same for the same numbers.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "worker/sampling/sampling_params.h"
#include "worker/schedule/form.h"

namespace behemoth::worker {

struct SamplerRequest {
  std::string kind;  // "xtc", "mixture"
  std::vector<TokenId> prompt;
  SamplingParams params;
  SamplingParams plain;    // what is left of `params` without what the kind is about
  bool is_masked = false;  // has a HashForm of the params' seed
  int32_t vocabulary = 0;
};

// `seeds` requests of each kind, then `mixtures`; for the tiny checkpoint.
std::vector<SamplerRequest> SamplerRequests(int32_t seeds, int32_t mixtures);

// Allows a quarter of the ids, others after each token. Its masks are there at once.
class HashForm : public Form {
 public:
  HashForm(uint64_t seed, int32_t vocabulary) : seed_(seed), vocabulary_(vocabulary) {}
  void Advance(TokenId token) override { tokens_.push_back(token); }
  void Restart(std::vector<TokenId> tokens) override { tokens_ = std::move(tokens); }
  FormState state() const override { return FormState::kReady; }
  std::shared_ptr<const TokenMask> mask() const override {
    return std::make_shared<const TokenMask>(MaskOf(seed_, vocabulary_, tokens_));
  }
  // Behind `tokens`.
  static TokenMask MaskOf(uint64_t seed, int32_t vocabulary, const std::vector<TokenId>& tokens);

 private:
  const uint64_t seed_;
  const int32_t vocabulary_;
  std::vector<TokenId> tokens_;
};

}  // namespace behemoth::worker
