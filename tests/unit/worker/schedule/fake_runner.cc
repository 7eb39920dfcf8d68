#include "tests/unit/worker/schedule/fake_runner.h"

#include <absl/strings/str_cat.h>

#include <algorithm>

namespace behemoth::worker {

uint64_t HashOf(uint64_t a, uint64_t b) {
  // The finalizer of splitmix64 (public domain, Vigna) over both words.
  uint64_t x = a * 0xff51afd7ed558ccd + b + 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

uint64_t FakePrefix::PlaceOf(TokenId token) const {
  return HashOf(state_, static_cast<uint64_t>(token) + 1);
}

void FakeSampler::Saw(TokenId token) {
  ++output_count;
  output_hash = HashOf(output_hash, static_cast<uint64_t>(token));
}

SampleResult FakeSampler::Sample(const FakePrefix& prefix, int32_t position) const {
  uint64_t draw = HashOf(prefix.state(), output_hash);
  draw = HashOf(draw, sampling->seed);
  draw = HashOf(draw, (static_cast<uint64_t>(sequence) << 32) | static_cast<uint32_t>(position));
  SampleResult result{.token = static_cast<TokenId>(draw % kSampledIds)};
  const auto has = [](const std::vector<TokenId>& ids, TokenId id) {
    return std::find(ids.begin(), ids.end(), id) != ids.end();
  };
  const auto banned = [&](TokenId id) {
    return has(sampling->banned_ids, id) ||
           (output_count < sampling->min_tokens && has(sampling->stop_ids, id));
  };
  for (int tries = 0; tries < kSampledIds && banned(result.token); ++tries) {
    result.token = (result.token + 1) % kSampledIds;
  }
  result.finite = !poisoned || output_count < kPoisonedOutput;
  if (sampling->top_logprobs >= 0) result.logprobs = FakeLogprobs(prefix, result.token);
  return result;
}

TokenLogprobs FakeLogprobs(const FakePrefix& prefix, TokenId next) {
  const uint64_t hash = HashOf(prefix.state(), static_cast<uint64_t>(next));
  return {.logprob = -static_cast<float>(hash % 100'000), .rank = 1 + next};
}

SoloRun RunAlone(const GenerationRequest& request, int32_t sequence) {
  SoloRun run;
  FakePrefix prefix;
  for (TokenId token : request.prompt) prefix.Add(token);
  FakeSampler sampler{.sampling = &request.sampling, .sequence = sequence};
  sampler.poisoned = std::count(request.prompt.begin(), request.prompt.end(), kPoisonId) > 0;
  const std::vector<TokenId>& stops = request.sampling.stop_ids;
  for (int32_t count = 0; count < request.max_tokens; ++count) {
    const SampleResult sample =
        sampler.Sample(prefix, static_cast<int32_t>(request.prompt.size()) + count);
    if (!sample.finite) {
      run.finite = false;
      return run;
    }
    const bool stop = count >= request.sampling.min_tokens &&
                      std::find(stops.begin(), stops.end(), sample.token) != stops.end();
    if (!stop || request.include_stop_id) run.tokens.push_back(sample.token);
    if (stop) {
      run.reason = FinishReason::kStop;
      run.matched_stop_id = sample.token;
      return run;
    }
    prefix.Add(sample.token);
    sampler.Saw(sample.token);
  }
  return run;
}

FakeRunner::FakeRunner(int32_t blocks, int32_t tokens_per_block, int32_t max_sequences)
    : tokens_per_block_(tokens_per_block),
      places_(static_cast<size_t>(blocks) * static_cast<size_t>(tokens_per_block)),
      slots_(static_cast<size_t>(max_sequences)),
      users_(static_cast<size_t>(blocks)) {
  for (size_t i = 0; i < places_.size(); ++i) places_[i] = HashOf(i, 0xbad);
}

void FakeRunner::Expect(bool condition, const char* what) {
  if (!condition && error_.empty()) error_ = absl::StrCat("step ", last_number_, ": ", what);
}

void FakeRunner::CheckPlan(const StepPlan& plan) {
  Expect(plan.number == last_number_ + 1, "steps are numbered without a gap");
  last_number_ = plan.number;
  std::fill(users_.begin(), users_.end(), 0);
  int32_t next_token = 0;
  for (const StepRow& row : plan.rows) {
    Expect(row.token_count >= 1, "a row has a token");
    Expect(row.first_token == next_token, "rows follow each other");
    next_token += row.token_count;
    const int32_t end = row.position + row.token_count;
    Expect(row.block_count == (end + tokens_per_block_ - 1) / tokens_per_block_,
           "the table covers the row");
    Slot& slot = slots_[static_cast<size_t>(row.slot)];
    Expect(std::exchange(slot.row_in, plan.number) != plan.number, "one row per slot");
    for (int32_t i = 0; i < row.block_count; ++i) {
      ++users_[static_cast<size_t>(plan.block_ids[static_cast<size_t>(row.first_block + i)])];
    }
  }
  Expect(next_token == static_cast<int32_t>(plan.token_ids.size()), "every token has a row");
  for (const StepRow& row : plan.rows) {
    for (int32_t i = row.position / tokens_per_block_; i < row.block_count; ++i) {
      const BlockId block = plan.block_ids[static_cast<size_t>(row.first_block + i)];
      Expect(users_[static_cast<size_t>(block)] == 1, "a block that is written has one user");
    }
  }
  for (const BlockCopy& copy : plan.copies) {
    Expect(users_[static_cast<size_t>(copy.to)] == 1, "a copy is made for one row");
    for (const BlockCopy& other : plan.copies) {
      Expect(copy.to != other.from, "nothing is copied over a source");
    }
  }
}

void FakeRunner::Copy(const StepPlan& plan) {
  for (const BlockCopy& copy : plan.copies) {
    const auto from = places_.begin() + static_cast<int64_t>(copy.from) * tokens_per_block_;
    std::copy_n(from, tokens_per_block_,
                places_.begin() + static_cast<int64_t>(copy.to) * tokens_per_block_);
    ++copies_;
  }
}

uint64_t& FakeRunner::Place(const StepPlan& plan, const StepRow& row, int32_t position) {
  const size_t index = static_cast<size_t>(row.first_block + position / tokens_per_block_);
  const int64_t block = static_cast<int64_t>(plan.block_ids[index]);
  return places_[static_cast<size_t>(block * tokens_per_block_ + position % tokens_per_block_)];
}

FakePrefix FakeRunner::RunRow(const StepPlan& plan, const StepRow& row, StepResult* result) {
  const Slot& slot = slots_[static_cast<size_t>(row.slot)];
  Expect(slot.bound, "a row's slot is bound");
  FakePrefix prefix;
  for (int32_t position = 0; position < row.position; ++position) {
    prefix.Read(Place(plan, row, position));
  }
  std::vector<TokenLogprobs> logprobs;
  for (int32_t i = 0; i < row.token_count; ++i) {
    TokenId token = plan.token_ids[static_cast<size_t>(row.first_token + i)];
    if (token == kPendingToken) {
      Expect(slot.sampled_in + 1 == plan.number, "a pending token was sampled one step before");
      token = slot.last;
    }
    Place(plan, row, row.position + i) = prefix.PlaceOf(token);
    prefix.Read(Place(plan, row, row.position + i));
    const TokenId next = i + 1 < row.token_count
                             ? plan.token_ids[static_cast<size_t>(row.first_token + i + 1)]
                             : row.next_token;
    if (next != kPendingToken) logprobs.push_back(FakeLogprobs(prefix, next));
  }
  if (row.prompt_logprobs) result->prompt_logprobs.push_back(std::move(logprobs));
  tokens_ += row.token_count;
  return prefix;
}

StepResult FakeRunner::Run(const StepPlan& plan) {
  CheckPlan(plan);
  StepResult result{.number = plan.number};
  for (const SlotBinding& binding : plan.bindings) {
    Slot& slot = slots_[static_cast<size_t>(binding.slot)];
    slot.binding = binding;
    slot.bound = true;
    slot.sampler = {.sampling = slot.binding.sampling.get(), .sequence = binding.sequence};
    slot.sampler.poisoned = std::count(binding.prompt.begin(), binding.prompt.end(), kPoisonId) > 0;
    for (TokenId token : binding.output) slot.sampler.Saw(token);
  }
  Copy(plan);
  after_.clear();
  for (const StepRow& row : plan.rows) after_.push_back(RunRow(plan, row, &result));
  for (const StepSample& sample : plan.samples) {
    Slot& slot = slots_[static_cast<size_t>(sample.slot)];
    const StepRow& row = plan.rows[static_cast<size_t>(sample.row)];
    Expect(slot.bound, "a sample's slot is bound");
    Expect(sample.position == row.position + row.token_count, "a sample follows its row");
    Expect(slot.sampled_in != plan.number, "one sample per slot");
    result.samples.push_back(
        slot.sampler.Sample(after_[static_cast<size_t>(sample.row)], sample.position));
    slot.last = result.samples.back().token;
    slot.sampled_in = plan.number;
    slot.sampler.Saw(slot.last);
    ++samples_;
  }
  return result;
}

}  // namespace behemoth::worker
