// A StepPlan as arrays for the kernels, filled on the host in pinned memory and uploaded whole.
//
// Order of the tokens on the device: first those that are no prompt (one attention row each,
// whichever row of the plan they came in: a decode, or the tail of a row that catches up), then the
// prompts' tokens, row by row. So every token meets the same kernels in every step it may be part
// of, and its bits do not depend on the step.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/device/backend.h"
#include "worker/device/cuda/memory.h"
#include "worker/schedule/step_plan.h"

namespace behemoth::worker::cuda {

// One address range, on the host and on the device alike. T = max_step_tokens rounded up to whole
// tiles, S = max_sequences; a *line* is an attention row's block table.
struct StepArrays {
  int32_t* token_id;         // [T]; < 0: the slot's pending token
  int32_t* token_slot;       // [T]
  int32_t* position;         // [T]; < 0: padding
  int32_t* token_line;       // [T]
  int32_t* kv_len;           // [T] by line; 0: padding
  int32_t* q_start;          // [T + 1] by prefill row, from the first prefill token on
  int32_t* sample_token;     // [S]; -1: padding
  int32_t* sample_slot;      // [S]; -1: padding
  int32_t* sample_position;  // [S]
  int32_t* mask_line;        // [S]; -1: the sample has no mask
  int32_t* score_token;      // [T]: prompt tokens whose successor is scored
  int32_t* score_successor;  // [T]
  int32_t* score_slot;       // [T]
  int32_t* copies;           // [S, 2] blocks
  int32_t* tables;           // [T, stride] by line; uploaded behind the rest as far as it is used
  uint32_t* mask;            // [S, mask words]; uploaded apart, only what samples of the step have

  static StepArrays Take(Arena& arena, const RunnerLimits& limits);
};

// What a step asks of the launches; all else lies in the arrays.
struct StepShape {
  int32_t tokens = 0;         // padded
  int32_t decode_tokens = 0;  // padded; the first ones
  int32_t prefill_tokens = 0;
  int32_t prefill_rows = 0;
  int32_t samples = 0;  // padded
  int32_t scores = 0;
  int32_t copies = 0;
  int32_t lines = 0;
  int32_t masks = 0;  // lines of StepArrays::mask
  // The launches depend on `tokens` alone: the step may be recorded.
  bool recordable = false;
  // Every key but each decode row's last was written by earlier steps.
  bool history_is_settled = false;
  bool wants_top = false;  // of samples or scores
};

// What Collect has to know of a step that is on its way.
struct StepReceipt {
  StepNumber number = 0;
  std::vector<int32_t> sample_tops;  // top_logprobs of each sample, -1 = none
  struct Prompt {
    int32_t first = 0, count = 0;  // scores
    int32_t top = 0;
  };
  std::vector<Prompt> prompts;
  std::vector<int32_t> late_masks;  // their lines of StepArrays::mask, in the order of the samples
};

class StepInputs {
 public:
  // `host` as laid out by StepArrays::Take over memory that outlives this. `slot_tops`: the
  // top_logprobs of each slot.
  StepInputs(const RunnerLimits& limits, const StepArrays& host) : limits_(limits), host_(host) {}

  // Late masks' lines are for FillMasks; null: everything is allowed.
  void FillMasks(const std::vector<int32_t>& lines, const MaskGate::Masks& masks) const;
  // `plan` has passed CheckPlan.
  StepShape Load(const StepPlan& plan, const std::vector<int32_t>& slot_tops, StepReceipt* receipt);

  // The number of decode rows that a step of `rows` is padded to.
  static int32_t PaddedDecodeRows(int32_t rows, int32_t max_sequences);
  static int32_t TableStride(const RunnerLimits& limits);
  static size_t MaskWords(const RunnerLimits& limits);

 private:
  void AddToken(const StepPlan& plan, const StepRow& row, int32_t index, int32_t line);
  void AddLine(const StepPlan& plan, const StepRow& row, int32_t line, int32_t kv_len);
  void AddDecodes(const StepPlan& plan, StepShape* shape);
  void AddPrefills(const StepPlan& plan, StepShape* shape);
  void AddSamples(const StepPlan& plan, const std::vector<int32_t>& slot_tops, StepShape* shape,
                  StepReceipt* receipt);
  void AddScores(const StepPlan& plan, const StepRow& row, int32_t top, StepShape* shape,
                 StepReceipt* receipt);

  const RunnerLimits limits_;
  const StepArrays host_;
  std::vector<int32_t> place_;  // of a plan's token on the device
  int32_t next_token_ = 0;
};

}  // namespace behemoth::worker::cuda
