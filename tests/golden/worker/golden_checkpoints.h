// The checkpoints that transformers computed golden logits for, and how far a right computation may
// lie from them. Format of the golden files: tests/models/README.md.
//
// Bound. rounding_device.h says what each operation's roundings add; the model runs with that much
// noise behind every operation, and the root mean square of what this moves a row's logits, over
// kNoisyRuns runs and the whole vocabulary, is the standard deviation that the difference of two
// right computations has. The bound is kSafety of them. The largest of a million normal draws is
// 4.9; the rest is for logits that lie further out than their row's mean, and for roundings that
// are not independent.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/golden/worker/rounding_device.h"
#include "tests/unit/worker/model/model_harness.h"

namespace behemoth::worker {

struct GoldenPrompt {
  std::vector<TokenId> ids;
  std::vector<int32_t> positions;          // whose logits are kept
  std::vector<std::vector<float>> logits;  // one row for each position
  std::vector<TokenId> greedy;
  std::vector<float> margins;  // of each greedy token over the second
};

struct GoldenCheckpoint {
  std::string name, folder, json;
  // Fails the test if a file is missing or short.
  std::vector<GoldenPrompt> Read() const;
};
void PrintTo(const GoldenCheckpoint& checkpoint, std::ostream* out);

// tiny and every variant.
std::vector<GoldenCheckpoint> GoldenCheckpoints();

// The model under noise, several times. Steps go to all of them.
class NoisyModels {
 public:
  static constexpr int kNoisyRuns = 6;
  static constexpr float kSafety = 8;

  NoisyModels(const std::string& folder, Arithmetic arithmetic, int32_t ranks = 1);

  // How far from the reference a right computation of `step` may lie; `exact` is its row without
  // noise.
  float Bound(const std::vector<float>& exact,
              const std::function<std::vector<float>(ModelHarness&)>& step);

 private:
  std::vector<std::unique_ptr<Device>> devices_;
  std::vector<std::unique_ptr<ModelHarness>> models_;
};

// Every golden row of logits, as the model of `options` (a folder is not needed) computes them, is
// within its bound. Prints the worst error and how near it came.
void ExpectLogitsWithinTheBound(const GoldenCheckpoint& checkpoint, HarnessOptions options,
                                Arithmetic arithmetic);
// Greedy tokens are the reference's, but where its margin is within the bound of a tie.
void ExpectGreedyTokens(const GoldenCheckpoint& checkpoint, HarnessOptions options,
                        Arithmetic arithmetic);

}  // namespace behemoth::worker
