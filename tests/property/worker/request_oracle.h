// The naive model of the scheduler: it knows no steps, blocks or queues, only what each request
// asked for and what was done to it. From that alone it says whether what the request heard is
// right: every token is the one that the sequence alone would have had, every end has a cause.
#pragma once

#include <absl/container/flat_hash_map.h>

#include <string>
#include <vector>

#include "tests/unit/worker/schedule/scheduler_fixture.h"

namespace behemoth::worker {

struct ForcedCall {
  std::vector<TokenId> ids;
  size_t heard_before = 0;  // tokens of the sequence when the call came
};

struct Expected {
  GenerationRequest request;                    // max_tokens as extended
  std::vector<int32_t> earlier_lengths;         // max_tokens before each extension
  std::vector<std::vector<ForcedCall>> forced;  // by sequence
  bool cancelled = false;
  bool aborted = false;
  int32_t number = 0;
};

class RequestOracle {
 public:
  RequestOracle(int32_t tokens_per_block, int32_t pipeline_depth)
      : tokens_per_block_(tokens_per_block), pipeline_depth_(pipeline_depth) {}

  // Numbers the request.
  Expected Expect(const GenerationRequest& request);
  // A request's tokens may be found in the cache from now on. Again and again as it gets longer.
  void MayBeCached(const Expected& expected, const Heard& heard);
  // Empty, or what is wrong with what a closed request heard.
  std::string Judge(const Expected& expected, const Heard& heard, absl::Time now);

  // Tokens that steps sampled and requests took, over all that were judged.
  int64_t accepted() const { return accepted_; }
  int64_t sequences() const { return sequences_; }

 private:
  struct Owners {
    int32_t first = 0, second = 0;
  };
  std::string JudgeClose(const Expected& expected, const Heard& heard, absl::Time now);
  std::string JudgeSequence(const Expected& expected, const Heard& heard, size_t index);
  std::string JudgeFinish(const Expected& expected, const FinishEvent& finish, size_t tokens);
  std::string JudgePromptLogprobs(const Expected& expected, const Heard& heard);
  bool CachedByAnother(const Expected& expected, int32_t tokens) const;
  void Own(uint64_t prefix, int32_t number);

  const int32_t tokens_per_block_;
  const int32_t pipeline_depth_;
  // Hash of (salt, tokens up to a block's end) -> two requests that had them.
  absl::flat_hash_map<uint64_t, Owners> owners_;
  int32_t count_ = 0;
  int64_t accepted_ = 0;
  int64_t sequences_ = 0;
};

}  // namespace behemoth::worker
