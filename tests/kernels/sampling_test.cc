// The sampler against its reference: tokens, statuses, counts and top ids must be equal, not near;
// only logprobs are floats. Bound of a logprob: expf and logf are within 2 ulp, the sum of n terms
// of one sign within (32 + log2 n) u, so 1e-5 absolute covers vocabularies up to 256k.
#include "kernels/sampling/sampling.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/sampling/mass.h"
#include "tests/kernels/fused_device_array.h"

namespace behemoth::kernels {
namespace {

constexpr int64_t kContext = 1200;  // of a slot's history

struct Batch {
  Batch(int vocabulary_size, int row_count, uint32_t seed)
      : vocabulary(vocabulary_size),
        rows(row_count),
        stride((vocabulary_size + 15) / 8 * 8),
        values(seed) {
    logits.assign(static_cast<size_t>(rows * stride), NAN);  // NaN past the vocabulary
    const size_t table = static_cast<size_t>(rows) * static_cast<size_t>(vocabulary);
    use.assign(table, 0);
    bias.assign(table, 0.0f);
    for (int row = 0; row < rows; ++row) {
      for (int id = 0; id < vocabulary; ++id) logit(row, id) = 3.0f * values.Normal();
      slot.push_back(rows - 1 - row);
      position.push_back(100 + 7 * row);
      sampling.push_back(
          {.sequence = row % 3, .seed = 0x1234567890abcdefULL + static_cast<uint64_t>(row)});
    }
    const size_t slots = static_cast<size_t>(rows);
    history.assign(slots * kContext, 0);
    breaker_end.assign(slots, 0);
    repeats.assign(slots * kContext, 0);
    breakers.assign(slots * ((static_cast<size_t>(vocabulary) + 31) / 32), 0);
    phrases.assign(slots * kPhraseWords, 0);
    mask_line.assign(static_cast<size_t>(rows), -1);
    mask.assign(2 * (static_cast<size_t>(vocabulary) + 31) / 32 + 2, ~0u);
  }

  float& logit(int row, int id) { return logits[static_cast<size_t>(row * stride + id)]; }
  SlotSampling& of_row(int row) {
    return sampling[static_cast<size_t>(slot[static_cast<size_t>(row)])];
  }
  size_t table(int row, int id) const {
    return static_cast<size_t>(slot[static_cast<size_t>(row)]) * static_cast<size_t>(vocabulary) +
           static_cast<size_t>(id);
  }

  int vocabulary, rows, stride;
  Values values;
  std::vector<float> logits, bias;
  std::vector<int32_t> slot, position;
  std::vector<SlotSampling> sampling;
  std::vector<uint32_t> use, mask, breakers, repeats;
  std::vector<int32_t> mask_line, history, breaker_end, phrases;
};

struct Outcome {
  std::vector<SampleOutput> out;
  std::vector<TopToken> top;
  std::vector<uint32_t> use;
  std::vector<int32_t> slot_token, history, breaker_end;
  std::vector<uint32_t> repeats;
};

Outcome Blank(const Batch& b) {
  return {std::vector<SampleOutput>(static_cast<size_t>(b.rows), {-7, SampleStatus::kOk, 0, 0}),
          std::vector<TopToken>(static_cast<size_t>(b.rows) * kMaxTopLogprobs, {-7, 0}),
          b.use,
          std::vector<int32_t>(static_cast<size_t>(b.rows), -7),
          b.history,
          b.breaker_end,
          b.repeats};
}

Outcome RunReference(const Batch& b) {
  Outcome o = Blank(b);
  reference::Sample({.logits = b.logits.data(),
                     .logits_stride = b.stride,
                     .vocabulary = b.vocabulary,
                     .slot = b.slot.data(),
                     .position = b.position.data(),
                     .sampling = b.sampling.data(),
                     .token_use = o.use.data(),
                     .bias = b.bias.data(),
                     .mask = b.mask.data(),
                     .mask_line = b.mask_line.data(),
                     .history = o.history.data(),
                     .history_stride = kContext,
                     .breaker_end = o.breaker_end.data(),
                     .breakers = b.breakers.data(),
                     .phrases = b.phrases.data(),
                     .slot_token = o.slot_token.data(),
                     .out = o.out.data(),
                     .top = o.top.data(),
                     .rows = b.rows});
  return o;
}

Outcome RunDevice(const Batch& b) {
  Outcome o = Blank(b);
  const DeviceArray<float> logits(b.logits), bias(b.bias);
  const DeviceArray<int32_t> slot(b.slot), position(b.position), slot_token(o.slot_token);
  const DeviceArray<SlotSampling> sampling(b.sampling);
  const DeviceArray<uint32_t> use(b.use), mask(b.mask);
  const DeviceArray<int32_t> mask_line(b.mask_line), history(b.history);
  const DeviceArray<int32_t> breaker_end(b.breaker_end), phrases(b.phrases);
  const DeviceArray<uint32_t> breakers(b.breakers), repeats(b.repeats);
  const DeviceArray<SampleOutput> out(o.out);
  const DeviceArray<TopToken> top(o.top);
  const DeviceArray<uint8_t> scratch(
      std::vector<uint8_t>(SampleScratchBytes(b.vocabulary, b.rows), 0xff));
  const KernelError error = LaunchSample({.logits = logits.get(),
                                          .logits_stride = b.stride,
                                          .vocabulary = b.vocabulary,
                                          .slot = slot.get(),
                                          .position = position.get(),
                                          .sampling = sampling.get(),
                                          .token_use = use.get(),
                                          .bias = bias.get(),
                                          .mask = mask.get(),
                                          .mask_line = mask_line.get(),
                                          .history = history.get(),
                                          .history_stride = kContext,
                                          .breaker_end = breaker_end.get(),
                                          .repeats = repeats.get(),
                                          .breakers = breakers.get(),
                                          .phrases = phrases.get(),
                                          .slot_token = slot_token.get(),
                                          .out = out.get(),
                                          .top = top.get(),
                                          .scratch = reinterpret_cast<uint32_t*>(scratch.get()),
                                          .rows = b.rows},
                                         {});
  EXPECT_TRUE(error.ok()) << error.operation << " " << error.code;
  return {out.Download(),     top.Download(),         use.Download(),    slot_token.Download(),
          history.Download(), breaker_end.Download(), repeats.Download()};
}

void ExpectEqual(const Outcome& actual, const Outcome& expected) {
  for (size_t row = 0; row < expected.out.size(); ++row) {
    const SampleOutput &a = actual.out[row], &e = expected.out[row];
    EXPECT_EQ(a.token, e.token) << "row " << row;
    EXPECT_EQ(a.status, e.status) << "row " << row;
    EXPECT_EQ(a.rank, e.rank) << "row " << row;
    EXPECT_NEAR(a.logprob, e.logprob, 1e-5) << "row " << row;
    for (size_t i = row * kMaxTopLogprobs; i < (row + 1) * kMaxTopLogprobs; ++i) {
      EXPECT_EQ(actual.top[i].id, expected.top[i].id) << "row " << row;
      EXPECT_NEAR(actual.top[i].logprob, expected.top[i].logprob, 1e-5) << "row " << row;
    }
  }
  EXPECT_TRUE(SameBits(actual.use, expected.use));
  EXPECT_EQ(actual.slot_token, expected.slot_token);
  EXPECT_EQ(actual.history, expected.history);
}

// Every row another mixture of samplers.
void Mix(Batch* b) {
  for (int row = 0; row < b->rows; ++row) {
    SlotSampling& s = b->of_row(row);
    s.temperature = row % 5 == 0 ? 0.0f : 0.3f * static_cast<float>(row % 5 + 1);
    s.top_k = row % 3 == 0 ? 0 : 1 << (row % 7);
    s.top_p = row % 4 == 0 ? 1.0f : 0.2f * static_cast<float>(row % 4) + 0.3f;
    s.min_p = row % 6 == 5 ? 0.05f : 0.0f;
    s.top_logprobs = row % 3 == 1 ? row % 21 : -1;
    s.has_bias = row % 4 == 2;
    s.tracks_tokens = row % 2 == 1;
    s.repetition_penalty = 1.2f, s.presence_penalty = 0.5f, s.frequency_penalty = -0.3f;
    s.min_position = row % 8 == 3 ? 1 << 20 : 0;
    for (int i = 0; i < b->vocabulary / 3; ++i) {
      const int id = b->values.Below(b->vocabulary);
      b->bias[b->table(row, id)] = i % 2 == 0 ? -INFINITY : b->values.Normal();
      b->use[b->table(row, id)] =
          static_cast<uint32_t>(i % 4) | (i % 3 == 0 ? kInPrompt : 0) | (i % 5 == 0 ? kIsStop : 0);
    }
  }
}

// Of three rows one has line 1, one line 0.
void MaskSome(Batch* b) {
  for (uint32_t& word : b->mask) word = static_cast<uint32_t>(b->values.Below(1 << 30)) * 5u;
  for (int row = 0; row < b->rows; ++row) b->mask_line[static_cast<size_t>(row)] = 1 - row % 3;
}

// Every row another mixture of the stages beyond, in another order.
void MixStages(Batch* b) {
  for (int row = 0; row < b->rows; ++row) {
    SlotSampling& s = b->of_row(row);
    s.has_stages = row % 8 != 0;
    if (s.has_stages == 0) continue;
    for (int i = kSampleStages - 1; i > 0 && row % 2 == 1; --i) {
      std::swap(s.order[i], s.order[b->values.Below(i + 1)]);
    }
    s.top_n_sigma = row % 3 == 1 ? 0.7f * static_cast<float>(row % 5) : 0.0f;
    s.typical_p = row % 4 == 1 ? 1.0f : 0.2f * static_cast<float>(row % 4) + 0.3f;
    s.xtc_probability = 0.5f * static_cast<float>(row % 3);
    s.xtc_threshold = 0.01f * static_cast<float>(row % 11);
    s.smoothing_factor = row % 5 == 3 ? 0.2f : 0.0f;
    s.smoothing_curve = 0.5f * static_cast<float>(row % 10 + 1);
    s.has_dynamic_temperature = row % 6 == 2;
    s.dynamic_low = 0.2f, s.dynamic_high = 1.7f, s.dynamic_exponent = 1.3f;
  }
}

// Histories of few ids, from empty ones to a thousand; breakers, windows and banned sequences.
void MixHistories(Batch* b) {
  const int kinds = std::min(b->vocabulary, 5);
  for (int row = 0; row < b->rows; ++row) {
    SlotSampling& s = b->of_row(row);
    const size_t slot = static_cast<size_t>(b->slot[static_cast<size_t>(row)]);
    s.has_history = row % 5 != 4;
    const int length = row % 7 == 0 ? row % 2 : 40 * (row % 26) + 1;
    b->position[static_cast<size_t>(row)] = length;
    for (int i = 0; i < length; ++i) {
      b->history[slot * kContext + static_cast<size_t>(i)] =
          row % 11 == 0 ? 0 : b->values.Below(kinds);  // one and the same id: the longest repeats
    }
    s.dry_multiplier = row % 3 == 2 ? 0.0f : 0.4f;
    s.dry_base = 1.0f + 0.3f * static_cast<float>(row % 4);
    s.dry_allowed_length = 1 + row % 3;
    s.dry_last_n = row % 4 == 1 ? 25 : 0;
    const size_t words = (static_cast<size_t>(b->vocabulary) + 31) / 32;
    if (row % 4 == 2) b->breakers[slot * words] = 2;
    s.banned_sequences = row % 3;
    s.spanning_breakers = row % 2;
    int32_t* line = b->phrases.data() + slot * kPhraseWords;
    const int lists = s.banned_sequences + 2 * s.spanning_breakers;
    for (int i = 0; i <= lists; ++i) line[i] = lists + 1 + 2 * i;
    for (int i = 0; i < 2 * lists; ++i) line[lists + 1 + i] = b->values.Below(kinds);
    for (int i = 1; i <= length; ++i) {  // the host's part: what the binding knows
      const int32_t* end = b->history.data() + slot * kContext + i;
      const bool single = (b->breakers[slot * words] >> end[-1] & 1) != 0;
      const int32_t* ids = line + lists + 1 + 2 * s.banned_sequences;  // two heads, a tail of two
      const bool spans = s.spanning_breakers == 1 && i >= 3 && end[-1] == ids[3] &&
                         end[-2] == ids[2] && (end[-3] == ids[0] || end[-3] == ids[1]);
      if ((single || spans) && i < length) b->breaker_end[slot] = i;  // the kernel finds the last
    }
  }
}

class SampleVocabularies : public testing::TestWithParam<int> {};

TEST_P(SampleVocabularies, EveryMixtureGivesTheReferencesToken) {
  SKIP_WITHOUT_GPU();
  Batch b(GetParam(), 60, 11);
  Mix(&b);
  ExpectEqual(RunDevice(b), RunReference(b));
}
TEST_P(SampleVocabularies, MaskedRowsToo) {
  SKIP_WITHOUT_GPU();
  Batch b(GetParam(), 60, 17);
  Mix(&b);
  MaskSome(&b);
  ExpectEqual(RunDevice(b), RunReference(b));
}
TEST_P(SampleVocabularies, EveryStageInAnyOrder) {
  SKIP_WITHOUT_GPU();
  Batch b(GetParam(), 60, 18);
  Mix(&b);
  MixStages(&b);
  ExpectEqual(RunDevice(b), RunReference(b));
}

TEST_P(SampleVocabularies, RepeatsAndBannedSequences) {
  SKIP_WITHOUT_GPU();
  Batch b(GetParam(), 60, 19);
  Mix(&b);
  MixStages(&b);
  MixHistories(&b);
  for (int row = 0; row < b.rows; ++row) {  // the history's ids are the likely ones
    for (int id = 0; id < std::min(b.vocabulary, 5); ++id) b.logit(row, id) += 9.0f;
  }
  ExpectEqual(RunDevice(b), RunReference(b));
}
INSTANTIATE_TEST_SUITE_P(All, SampleVocabularies,
                         testing::Values(1, 5, 512, 4097, 32000, 32768, 32769, 131072));

// The next step finds what the last one left on the device. Half of the rows are made to go round
// in circles of one to four ids, so that their repeats grow to the longest; the others draw from
// few. Now and then a row is bound again, which forgets what is known and nothing else.
TEST(SampleTest, RepeatsAreRememberedFromStepToStep) {
  SKIP_WITHOUT_GPU();
  Batch b(5, 36, 20);
  Mix(&b);
  MixHistories(&b);
  int long_repeats = 0;
  for (int step = 0; step < 190; ++step) {
    for (int row = 0; row < b.rows; ++row) {
      const size_t slot = static_cast<size_t>(b.slot[static_cast<size_t>(row)]);
      b.of_row(row).dry_multiplier = 0.4f;
      b.of_row(row).dry_base = 1.0f + 0.001f * static_cast<float>(row % 4);
      for (int id = 0; id < b.vocabulary; ++id) b.logit(row, id) = b.values.Normal();
      const int circle = row % 2 == 0 ? 1 + row / 2 % 4 : 0;
      if (circle > 0) b.logit(row, b.position[static_cast<size_t>(row)] % circle) += 30.0f;
      if (b.values.Below(60) > 0) continue;
      std::fill_n(b.repeats.begin() + static_cast<int64_t>(slot) * kContext, kContext, 0u);
    }
    const Outcome actual = RunDevice(b), expected = RunReference(b);
    ExpectEqual(actual, expected);
    if (testing::Test::HasFailure()) FAIL() << "step " << step;
    b.use = actual.use, b.history = actual.history;
    b.breaker_end = actual.breaker_end, b.repeats = actual.repeats;
    for (int32_t& position : b.position) ++position;
    for (const uint32_t word : b.repeats) long_repeats += (word & 2047) > 150;
  }
  EXPECT_GT(long_repeats, 0);
}

TEST(SampleTest, FlatDistributionsAreBisectedToTheEnd) {
  SKIP_WITHOUT_GPU();
  Batch b(32768, 8, 12);  // all values within a hair: more than 1,024 candidates until late
  for (int row = 0; row < b.rows; ++row) {
    for (int id = 0; id < b.vocabulary; ++id) {
      b.logit(row, id) = row < 4 ? 1.0f : 1.0f + 1e-3f * b.values.Normal();
    }
    b.of_row(row).top_p = 0.37f;
    b.of_row(row).top_k = row % 2 == 0 ? 0 : 9000;
  }
  ExpectEqual(RunDevice(b), RunReference(b));
}

TEST(SampleTest, TiesGoToTheLowestIdWhenGreedy) {
  SKIP_WITHOUT_GPU();
  Batch b(1000, 2, 13);
  for (int row = 0; row < 2; ++row) {
    b.of_row(row).temperature = 0.0f;
    for (int id : {977, 801, 345}) b.logit(row, id) = 50.0f;
  }
  const Outcome o = RunDevice(b);
  EXPECT_EQ(o.out[0].token, 345);
  EXPECT_EQ(o.out[1].token, 345);
}

TEST(SampleTest, ABrokenRowIsFlaggedAndItsNeighboursAreNot) {
  SKIP_WITHOUT_GPU();
  Batch b(700, 5, 14);
  b.logit(1, 699) = NAN;
  b.logit(2, 3) = INFINITY;
  b.logit(3, 5) = -INFINITY;
  b.of_row(4).has_bias = 1;
  for (int id = 0; id < 700; ++id) b.bias[b.table(4, id)] = -INFINITY;
  const Outcome o = RunDevice(b);
  ExpectEqual(o, RunReference(b));
  EXPECT_EQ(o.out[0].status, SampleStatus::kOk);
  EXPECT_EQ(o.out[1].status, SampleStatus::kNotFinite);
  EXPECT_EQ(o.out[2].status, SampleStatus::kNotFinite);
  EXPECT_EQ(o.out[3].status, SampleStatus::kOk);
  EXPECT_EQ(o.out[4].status, SampleStatus::kNothingAllowed);
}

TEST(SampleTest, InactiveRowsAreNotTouched) {
  SKIP_WITHOUT_GPU();
  Batch b(512, 3, 15);
  b.slot = {2, -1, 0};
  const Outcome o = RunDevice(b);
  EXPECT_EQ(o.out[1].token, -7);
  EXPECT_EQ(o.slot_token[1], -7);
}

// Chi-square over 40 equally likely bins and 60 * 64 draws: 39 degrees of freedom, p = 1e-4 at 81.
TEST(SampleTest, DrawsFollowTheDistribution) {
  SKIP_WITHOUT_GPU();
  std::vector<int> hits(40, 0);
  for (int round = 0; round < 64; ++round) {
    Batch b(40, 60, 16);
    for (int row = 0; row < b.rows; ++row) {
      b.position[static_cast<size_t>(row)] = 60 * round + row;
      b.of_row(row).seed = 99;
      b.of_row(row).sequence = 0;
      for (int id = 0; id < 40; ++id) b.logit(row, id) = 0.5f;
    }
    for (const SampleOutput& out : RunDevice(b).out) ++hits[static_cast<size_t>(out.token)];
  }
  double chi = 0;
  for (int hit : hits) chi += (hit - 96.0) * (hit - 96.0) / 96.0;
  EXPECT_LT(chi, 81.0);
}

TEST(TokenUseTest, MarksPromptStopsAndCountsOutputs) {
  SKIP_WITHOUT_GPU();
  const std::vector<int32_t> prompt = {1, 2, 2, 99, -4}, output = {2, 2, 7, 100},
                             stop = {7, 2, 1 << 30};
  std::vector<uint32_t> want(100, 5);
  TokenUseArgs args = {.line = want.data(),
                       .vocabulary = 100,
                       .prompt = prompt.data(),
                       .prompt_count = 5,
                       .output = output.data(),
                       .output_count = 4,
                       .stop = stop.data(),
                       .stop_count = 3};
  reference::TokenUse(args);
  const DeviceArray<uint32_t> line(std::vector<uint32_t>(100, 5));
  const DeviceArray<int32_t> d_prompt(prompt), d_output(output), d_stop(stop);
  args.line = line.get();
  args.prompt = d_prompt.get();
  args.output = d_output.get();
  args.stop = d_stop.get();
  ASSERT_TRUE(LaunchTokenUse(args, {}).ok());
  EXPECT_TRUE(SameBits(line.Download(), want));
}

// Known answers of Philox4x32-10 from the authors' Random123 distribution.
TEST(PhiloxTest, MatchesThePublishedVectors) {
  const PhiloxBlock zero = Philox4x32({{0, 0, 0, 0}}, 0);
  EXPECT_EQ(zero.word[0], 0x6627e8d5u);
  EXPECT_EQ(zero.word[1], 0xe169c58du);
  EXPECT_EQ(zero.word[2], 0xbc57ac4cu);
  EXPECT_EQ(zero.word[3], 0x9b00dbd8u);
  const PhiloxBlock pi =
      Philox4x32({{0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}}, 0x299f31d0a4093822ULL);
  EXPECT_EQ(pi.word[0], 0xd16cfe09u);
  EXPECT_EQ(pi.word[1], 0x94fdccebu);
  EXPECT_EQ(pi.word[2], 0x5001e420u);
  EXPECT_EQ(pi.word[3], 0x24126ea1u);
}

TEST(MassTest, IsTheExponentialAndNeverGrowsWithDistance) {
  EXPECT_EQ(MassOf(0.0f), kUnitMass);
  EXPECT_EQ(MassOf(-INFINITY), 0u);
  uint32_t last = kUnitMass;
  for (float x = 0.0f; x > -24.0f; x -= 0.00037f) {
    const uint32_t mass = MassOf(x);
    EXPECT_LE(mass, last) << x;
    EXPECT_NEAR(mass, std::exp(static_cast<double>(x)) * kUnitMass,
                0.5 + 0x1p-22 * std::exp(static_cast<double>(x)) * kUnitMass)
        << x;
    last = mass;
  }
}

}  // namespace
}  // namespace behemoth::kernels
