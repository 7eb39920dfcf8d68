// A loaded model with nothing before it: plans are made by hand and raw logits can be read.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "worker/device/device.h"
#include "worker/model/activations.h"
#include "worker/model/transformer.h"
#include "worker/runner/model_folder.h"
#include "worker/runner/model_loader.h"

namespace behemoth::worker {

struct HarnessOptions {
  std::string folder;
  const Device* device = nullptr;  // nullptr: the cpu
  std::vector<RankPlace> ranks;    // not empty: instead of device, one model on all of them
  int32_t context_tokens = 256;
  int32_t max_sequences = 8;
  int32_t max_step_tokens = 256;
  int32_t blocks = 32;
  int32_t threads = 2;
  std::optional<KvType> kv_type;  // nullopt: the device's own
};

// One sequence's part of a step.
struct Piece {
  int32_t slot = 0;
  std::vector<TokenId> tokens;
  int32_t position = 0;
  std::vector<BlockId> blocks;  // the whole table
  bool sample = true;
  int32_t output_count = 0;      // of the tokens, the last ones that are no prompt
  std::vector<TokenId> allowed;  // what its mask lets through; empty: it has none
};

class ModelHarness {
 public:
  // Fails the test, and leaves ok() false, if the model does not load.
  explicit ModelHarness(const HarnessOptions& options);
  bool ok() const { return !parts_.empty(); }
  int32_t vocabulary_size() const { return folder_.config.vocabulary_size; }
  const ModelConfig& config() const { return folder_.config; }

  // Runs one step, greedy; the raw logits of each piece that samples, in order. Ranks that do not
  // end with the same bits fail the test.
  std::vector<std::vector<float>> Step(const std::vector<Piece>& pieces);
  // Two steps on their way at once, on one rank; the masks of the second one come after the first
  // has ended. What the second one sampled.
  std::vector<SampleResult> StepThenOneWithLateMasks(const std::vector<Piece>& first,
                                                     const std::vector<Piece>& second);
  // What the backend says to a step of which nothing is computed.
  absl::Status Verdict(const std::vector<Piece>& pieces);
  // Runs a step that copies a block and nothing else.
  void CopyBlock(BlockId from, BlockId to);
  // Logits after the last of `tokens`, computed in chunks of at most `chunk` in blocks of its own.
  std::vector<float> LogitsAfter(const std::vector<TokenId>& tokens, int32_t chunk);
  // A table of `count` consecutive blocks.
  static std::vector<BlockId> Table(int32_t first, int32_t count);
  // What the last Step sampled.
  const StepResult& result() const { return result_; }

 private:
  // One rank's, or all there is.
  struct Part {
    std::unique_ptr<Backend> backend;
    Activations activations;
    std::unique_ptr<Transformer> transformer;
    StepResult result;
    std::vector<float> logits;  // of the last step, all rows
  };
  void Load(const HarnessOptions& options);
  void LoadPart(const HarnessOptions& options, const RankPlace& place, const ModelConfig& config,
                Part& part);
  void StepOnPart(const StepPlan& plan, Part& part);
  StepPlan PlanFor(const std::vector<Piece>& pieces);
  std::shared_ptr<const TokenMask> MaskOf(const std::vector<TokenId>& allowed) const;

  std::unique_ptr<Device> cpu_;
  ModelFolder folder_;
  std::vector<Part> parts_;
  StepResult result_;
  StepNumber step_ = 0;
};

// Ids that are some prompt, the same for the same seed.
std::vector<TokenId> SomeTokens(int32_t count, int32_t vocabulary_size, uint32_t seed);

}  // namespace behemoth::worker
