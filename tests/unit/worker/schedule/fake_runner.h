// A runner without a model, for tests of the scheduling side: what it keeps in a block's places is
// a hash of the whole prefix (as keys and values are a function of it), and what it samples is a
// hash over all places of the block table. So a row that reads a wrong, stale or unwritten place
// yields another token than the sequence alone would.
// It holds every plan against the contract of step_plan.h; error() is the first breach.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "worker/schedule/generation.h"
#include "worker/schedule/step_plan.h"

namespace behemoth::worker {

// Ids are sampled from [0, kSampledIds); tests force ids from kFirstForcedId on, so that a token
// says where it came from.
constexpr TokenId kSampledIds = 4;
constexpr TokenId kFirstForcedId = 1000;
// The third token after a prompt that holds this id comes from logits that are not finite.
constexpr TokenId kPoisonId = 999;
constexpr int32_t kPoisonedOutput = 2;

uint64_t HashOf(uint64_t a, uint64_t b);

// What a model knows after some tokens.
class FakePrefix {
 public:
  // What the next token leaves in its place of a block.
  uint64_t PlaceOf(TokenId token) const;
  void Read(uint64_t place) { state_ = HashOf(state_, place); }
  void Add(TokenId token) { Read(PlaceOf(token)); }
  uint64_t state() const { return state_; }

 private:
  uint64_t state_ = 0x9e3779b97f4a7c15;
};

// The sampler's state of one sequence: as real ones, it must be told what was generated.
struct FakeSampler {
  const SamplingParams* sampling = nullptr;
  int32_t sequence = 0;
  bool poisoned = false;
  int32_t output_count = 0;
  uint64_t output_hash = 0;

  void Saw(TokenId token);
  SampleResult Sample(const FakePrefix& prefix, int32_t position) const;
};

// The "logprobs" of `next` after `prefix`: distinct for every prefix.
TokenLogprobs FakeLogprobs(const FakePrefix& prefix, TokenId next);

// The text of one sequence alone, obvious on purpose: one token after the other, no blocks, no
// steps. Nothing is forced on it.
struct SoloRun {
  std::vector<TokenId> tokens;  // what the client gets
  FinishReason reason = FinishReason::kLength;
  std::optional<TokenId> matched_stop_id;
  bool finite = true;
};
SoloRun RunAlone(const GenerationRequest& request, int32_t sequence = 0);

class FakeRunner {
 public:
  FakeRunner(int32_t blocks, int32_t tokens_per_block, int32_t max_sequences);

  StepResult Run(const StepPlan& plan);

  const std::string& error() const { return error_; }
  int64_t copies() const { return copies_; }
  int64_t samples() const { return samples_; }
  int64_t tokens() const { return tokens_; }

 private:
  struct Slot {
    SlotBinding binding;
    FakeSampler sampler;
    bool bound = false;
    TokenId last = 0;
    StepNumber sampled_in = 0;
    StepNumber row_in = 0;
  };

  void Expect(bool condition, const char* what);
  void CheckPlan(const StepPlan& plan);
  void Copy(const StepPlan& plan);
  FakePrefix RunRow(const StepPlan& plan, const StepRow& row, StepResult* result);
  uint64_t& Place(const StepPlan& plan, const StepRow& row, int32_t position);

  const int32_t tokens_per_block_;
  std::vector<uint64_t> places_;  // [blocks, tokens_per_block]
  std::vector<Slot> slots_;
  std::vector<int32_t> users_;     // [blocks], of the plan being checked
  std::vector<FakePrefix> after_;  // [rows]
  StepNumber last_number_ = 0;
  int64_t copies_ = 0;
  int64_t samples_ = 0;
  int64_t tokens_ = 0;
  std::string error_;
};

}  // namespace behemoth::worker
