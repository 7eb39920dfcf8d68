#include "worker/device/cuda/step_inputs.h"

#include <algorithm>

#include "kernels/paged_attention/kv_layout.h"

namespace behemoth::worker::cuda {
namespace {

constexpr int32_t kTokenTile = 128;  // of the prefill GEMM; a buffer holds whole tiles

size_t PaddedTokens(const RunnerLimits& limits) {
  return static_cast<size_t>((limits.max_step_tokens + kTokenTile - 1) / kTokenTile * kTokenTile);
}

}  // namespace

StepArrays StepArrays::Take(Arena& arena, const RunnerLimits& limits) {
  const size_t tokens = PaddedTokens(limits);
  const size_t sequences = static_cast<size_t>(limits.max_sequences);
  const auto take = [&](size_t count) { return arena.Take<int32_t>(count); };
  return {.token_id = take(tokens),
          .token_slot = take(tokens),
          .position = take(tokens),
          .token_line = take(tokens),
          .kv_len = take(tokens),
          .q_start = take(tokens + 1),
          .sample_token = take(sequences),
          .sample_slot = take(sequences),
          .sample_position = take(sequences),
          .mask_line = take(sequences),
          .score_token = take(tokens),
          .score_successor = take(tokens),
          .score_slot = take(tokens),
          .copies = take(2 * sequences),
          .tables = take(tokens * static_cast<size_t>(StepInputs::TableStride(limits))),
          .mask = arena.Take<uint32_t>(sequences * StepInputs::MaskWords(limits))};
}

// Powers of two, and the largest step itself: at most twice the rows, of which the padding costs
// nearly nothing below 64 rows, where the weights are what a step waits for.
int32_t StepInputs::PaddedDecodeRows(int32_t rows, int32_t max_sequences) {
  int32_t padded = 1;
  while (padded < rows) padded *= 2;
  return std::max(rows, std::min(padded, max_sequences));
}

int32_t StepInputs::TableStride(const RunnerLimits& limits) {
  return (limits.context_tokens + limits.tokens_per_block - 1) / limits.tokens_per_block;
}

size_t StepInputs::MaskWords(const RunnerLimits& limits) {
  return (static_cast<size_t>(limits.vocabulary_size) + 31) / 32;
}

StepShape StepInputs::Load(const StepPlan& plan, const std::vector<int32_t>& slot_tops,
                           StepReceipt* receipt) {
  StepShape shape;
  *receipt = {.number = plan.number};
  place_.resize(plan.token_ids.size());
  next_token_ = 0;
  for (const BlockCopy& copy : plan.copies) {
    host_.copies[2 * shape.copies] = static_cast<int32_t>(copy.from);
    host_.copies[2 * shape.copies + 1] = static_cast<int32_t>(copy.to);
    ++shape.copies;
  }
  AddDecodes(plan, &shape);
  AddPrefills(plan, &shape);
  shape.tokens = next_token_;
  AddSamples(plan, slot_tops, &shape, receipt);
  return shape;
}

void StepInputs::AddToken(const StepPlan& plan, const StepRow& row, int32_t index, int32_t line) {
  const int32_t at = next_token_++;
  place_[static_cast<size_t>(row.first_token + index)] = at;
  host_.token_id[at] = plan.token_ids[static_cast<size_t>(row.first_token + index)];
  host_.token_slot[at] = static_cast<int32_t>(row.slot);
  host_.position[at] = row.position + index;
  host_.token_line[at] = line;
}

void StepInputs::AddLine(const StepPlan& plan, const StepRow& row, int32_t line, int32_t kv_len) {
  const int32_t blocks = (kv_len + limits_.tokens_per_block - 1) / limits_.tokens_per_block;
  host_.kv_len[line] = kv_len;
  int32_t* const table = host_.tables + int64_t{line} * TableStride(limits_);
  for (int32_t i = 0; i < blocks; ++i) {
    table[i] = static_cast<int32_t>(plan.block_ids[static_cast<size_t>(row.first_block + i)]);
  }
}

void StepInputs::AddDecodes(const StepPlan& plan, StepShape* shape) {
  bool all_single = true, any_prefill = false;
  for (const StepRow& row : plan.rows) {
    any_prefill |= row.output_count < row.token_count;
    all_single &= row.token_count == 1;
    for (int32_t i = row.token_count - row.output_count; i < row.token_count; ++i) {
      const int32_t line = next_token_;
      AddToken(plan, row, i, line);
      AddLine(plan, row, line, row.position + i + 1);
    }
  }
  shape->history_is_settled = all_single;
  shape->recordable = !any_prefill && next_token_ > 0 && next_token_ <= limits_.max_sequences &&
                      plan.samples.size() <= static_cast<size_t>(next_token_);
  if (shape->recordable) {
    const int32_t padded = PaddedDecodeRows(next_token_, limits_.max_sequences);
    for (; next_token_ < padded; ++next_token_) {
      host_.token_id[next_token_] = 0;
      host_.token_slot[next_token_] = 0;
      host_.position[next_token_] = -1;
      host_.token_line[next_token_] = 0;
      host_.kv_len[next_token_] = 0;
    }
    // A recording is made once for all steps of its width, so it must suit each of them.
    shape->recordable = all_single;
  }
  shape->decode_tokens = next_token_;
  shape->lines = next_token_;
}

void StepInputs::AddPrefills(const StepPlan& plan, StepShape* shape) {
  for (const StepRow& row : plan.rows) {
    const int32_t count = row.token_count - row.output_count;
    if (count == 0) continue;
    const int32_t line = shape->lines++;
    host_.q_start[shape->prefill_rows++] = shape->prefill_tokens;
    AddLine(plan, row, line, row.position + count);
    for (int32_t i = 0; i < count; ++i) AddToken(plan, row, i, line);
    shape->prefill_tokens += count;
  }
  host_.q_start[shape->prefill_rows] = shape->prefill_tokens;
}

void StepInputs::AddSamples(const StepPlan& plan, const std::vector<int32_t>& slot_tops,
                            StepShape* shape, StepReceipt* receipt) {
  for (const StepSample& sample : plan.samples) {
    const StepRow& row = plan.rows[static_cast<size_t>(sample.row)];
    const int32_t last = row.first_token + row.token_count - 1;
    const int32_t top = slot_tops[static_cast<size_t>(sample.slot)];
    host_.sample_token[shape->samples] = place_[static_cast<size_t>(last)];
    host_.sample_slot[shape->samples] = static_cast<int32_t>(sample.slot);
    host_.sample_position[shape->samples] = sample.position;
    const bool masked = sample.mask || sample.late_mask;
    const int32_t line = masked ? shape->masks++ : -1;
    host_.mask_line[shape->samples] = line;
    if (sample.mask) FillMasks({line}, {sample.mask});
    if (sample.late_mask) receipt->late_masks.push_back(line);
    ++shape->samples;
    receipt->sample_tops.push_back(top);
    shape->wants_top |= top > 0;
  }
  for (const StepRow& row : plan.rows) {
    if (!row.prompt_logprobs) continue;
    const int32_t top = slot_tops[static_cast<size_t>(row.slot)];
    AddScores(plan, row, std::max(0, top), shape, receipt);
  }
  shape->recordable &= shape->scores == 0;
  if (!shape->recordable) return;
  for (; shape->samples < shape->tokens; ++shape->samples) {
    host_.sample_token[shape->samples] = -1;
    host_.sample_slot[shape->samples] = -1;
    host_.sample_position[shape->samples] = 0;
    host_.mask_line[shape->samples] = -1;
  }
}

void StepInputs::FillMasks(const std::vector<int32_t>& lines, const MaskGate::Masks& masks) const {
  const size_t words = MaskWords(limits_);
  for (size_t i = 0; i < lines.size(); ++i) {
    uint32_t* const line = host_.mask + static_cast<size_t>(lines[i]) * words;
    if (masks[i]) {
      std::copy(masks[i]->begin(), masks[i]->end(), line);
    } else {
      std::fill_n(line, words, ~uint32_t{0});
    }
  }
}

void StepInputs::AddScores(const StepPlan& plan, const StepRow& row, int32_t top, StepShape* shape,
                           StepReceipt* receipt) {
  const int32_t count = row.token_count - (row.next_token == kPendingToken ? 1 : 0);
  receipt->prompts.push_back({shape->scores, count, top});
  shape->wants_top |= top > 0;
  for (int32_t i = 0; i < count; ++i) {
    const int32_t token = row.first_token + i;
    const bool last = i + 1 == row.token_count;
    host_.score_token[shape->scores] = place_[static_cast<size_t>(token)];
    host_.score_successor[shape->scores] =
        last ? row.next_token : plan.token_ids[static_cast<size_t>(token) + 1];
    host_.score_slot[shape->scores] = static_cast<int32_t>(row.slot);
    ++shape->scores;
  }
}

}  // namespace behemoth::worker::cuda
