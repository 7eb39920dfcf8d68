#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <vector>

#include "kernels/sampling/mass.h"
#include "kernels/sampling/sampling.h"
#include "kernels/sampling/stage_math.h"

namespace behemoth::kernels::reference {
namespace {

std::vector<float> RawLogits(const SampleArgs& args, int row) {
  const int64_t line = args.logits_row == nullptr ? row : args.logits_row[row];
  std::vector<float> raw(static_cast<size_t>(args.vocabulary));
  for (size_t id = 0; id < raw.size(); ++id) {
    const size_t at = static_cast<size_t>(line * args.logits_stride) + id;
    raw[id] = args.logits_are_bf16 ? ToFloat(static_cast<const bf16*>(args.logits)[at])
                                   : static_cast<const float*>(args.logits)[at];
  }
  return raw;
}

// Everything is allowed where a row has no mask.
bool IsAllowed(const SampleArgs& args, int row, size_t id) {
  if (args.mask == nullptr || args.mask_line[row] < 0) return true;
  const size_t words = (static_cast<size_t>(args.vocabulary) + 31) / 32;
  const size_t line = static_cast<size_t>(args.mask_line[row]) * words;
  return (args.mask[line + id / 32] >> (id % 32) & 1) != 0;
}

// Whether the first `count` ids of the slot's history end with `ids`.
bool EndsWith(const int32_t* history, int count, const std::vector<int32_t>& ids) {
  const int length = static_cast<int>(ids.size());
  return length <= count && std::equal(ids.begin(), ids.end(), history + count - length);
}

// List `index` of the slot's phrases.
std::vector<int32_t> Phrase(const SampleArgs& args, int slot, int index) {
  const int32_t* line = args.phrases + static_cast<int64_t>(slot) * kPhraseWords;
  return {line + line[index], line + line[index + 1]};
}

bool IsBreaker(const SampleArgs& args, int slot, int32_t id) {
  const size_t words = (static_cast<size_t>(args.vocabulary) + 31) / 32;
  const size_t word = static_cast<size_t>(slot) * words + static_cast<size_t>(id / 32);
  return (args.breakers[word] >> (id % 32) & 1) != 0;
}

// Whether a breaker ends behind the first `count` ids.
bool BreaksAt(const SampleArgs& args, int slot, int count) {
  const int32_t* history = args.history + slot * args.history_stride;
  if (IsBreaker(args, slot, history[count - 1])) return true;
  const SlotSampling& s = args.sampling[slot];
  for (int i = 0; i < s.spanning_breakers; ++i) {
    std::vector<int32_t> ids = Phrase(args, slot, s.banned_sequences + 2 * i + 1);
    ids.insert(ids.begin(), 0);
    for (const int32_t head : Phrase(args, slot, s.banned_sequences + 2 * i)) {
      ids[0] = head;
      if (EndsWith(history, count, ids)) return true;
    }
  }
  return false;
}

// By the definition, over every pair of places: the longest repeat that each id would lengthen.
std::vector<int32_t> Repeats(const SampleArgs& args, int slot, int count) {
  const SlotSampling& s = args.sampling[slot];
  const int32_t* history = args.history + slot * args.history_stride;
  std::vector<int32_t> longest(static_cast<size_t>(args.vocabulary), 0);
  const int start = s.dry_last_n > 0 ? std::max(0, count - s.dry_last_n) : 0;
  int border = start;
  for (int i = start + 1; i <= count; ++i) border = BreaksAt(args, slot, i) ? i : border;
  for (int at = start; at + 1 < count; ++at) {
    int length = 0;
    while (at - length >= start && count - 1 - length >= border &&
           length < s.dry_allowed_length + kMaxDryExcess &&
           history[at - length] == history[count - 1 - length]) {
      ++length;
    }
    int32_t& known = longest[static_cast<size_t>(history[at + 1])];
    if (length >= s.dry_allowed_length && !IsBreaker(args, slot, history[at + 1])) {
      known = std::max(known, length);
    }
  }
  return longest;
}

void Adjust(const SampleArgs& args, int row, std::vector<float>* logits) {
  const int slot = args.slot[row], position = args.position[row];
  const SlotSampling& s = args.sampling[slot];
  const size_t line = static_cast<size_t>(slot) * logits->size();
  const bool looks_back = s.has_history != 0 && position > 0;
  std::vector<int32_t> repeats(logits->size(), 0);
  if (looks_back && s.dry_multiplier > 0) repeats = Repeats(args, slot, position);
  for (size_t id = 0; id < logits->size(); ++id) {
    float& x = (*logits)[id];
    const uint32_t use = s.tracks_tokens != 0 ? args.token_use[line + id] : 0;
    if (s.has_bias != 0) x += args.bias[line + id];
    if (!IsAllowed(args, row, id)) x = -INFINITY;
    if ((use & kIsStop) != 0 && position < s.min_position) x = -INFINITY;
    if (repeats[id] > 0) {
      x -= DryPenalty(s.dry_multiplier, s.dry_base, repeats[id] - s.dry_allowed_length);
    }
    const uint32_t count = use & kOutputCount;
    if (count != 0 || (use & kInPrompt) != 0) {
      x = x > 0.0f ? x / s.repetition_penalty : x * s.repetition_penalty;
    }
    if (count != 0) {
      x = std::fmaf(-s.frequency_penalty, static_cast<float>(count), x);
      x -= s.presence_penalty;
    }
  }
  for (int i = 0; looks_back && i < s.banned_sequences; ++i) {
    std::vector<int32_t> ids = Phrase(args, slot, i);
    const int32_t last = ids.back();
    ids.pop_back();
    if (EndsWith(args.history + slot * args.history_stride, position, ids)) {
      (*logits)[static_cast<size_t>(last)] = -INFINITY;
    }
  }
}

// A token that is left: by stages, by sorting.
struct Candidate {
  int32_t id;
  float logit;   // adjusted
  float scaled;  // after temperature and smoothing, 0 = the largest at that time
  uint32_t mass;
};
using Candidates = std::vector<Candidate>;

uint64_t Total(const Candidates& left) {
  uint64_t total = 0;
  for (const Candidate& c : left) total += c.mass;
  return total;
}

template <typename Keep>
void KeepIf(Candidates* left, Keep keep) {
  left->erase(std::remove_if(left->begin(), left->end(),
                             [&](const Candidate& c) { return c.mass == 0 || !keep(c); }),
              left->end());
}

std::vector<uint32_t> Descending(const Candidates& left) {
  std::vector<uint32_t> sorted;
  for (const Candidate& c : left) sorted.push_back(c.mass);
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  return sorted;
}

void Temper(const SlotSampling& s, bool neutral, Candidates* left) {
  float top = -INFINITY, largest = -INFINITY;
  for (const Candidate& c : *left) top = std::max(top, c.logit);
  float temperature = neutral ? 1.0f : std::max(s.temperature, kGreedyTemperature);
  if (!neutral && s.has_dynamic_temperature != 0) {
    Entropy e = {0, 0, static_cast<uint32_t>(left->size())};
    for (const Candidate& c : *left) {
      const uint32_t mass = MassOf(c.logit - top);
      e.total += mass;
      e.weighted += mass == 0 ? 0 : uint64_t{mass} * SurprisalOf(mass);
    }
    temperature = DynamicTemperatureOf(e, {s.dynamic_low, s.dynamic_high, s.dynamic_exponent},
                                       kGreedyTemperature);
  }
  const float inverse = 1.0f / temperature;
  for (Candidate& c : *left) {
    c.scaled = (c.logit - top) * inverse;
    if (!neutral) c.scaled = Smooth(c.scaled, s.smoothing_factor, s.smoothing_curve);
    largest = std::max(largest, c.scaled);
  }
  for (Candidate& c : *left) c.mass = MassOf(c.scaled - largest);
}

void TopNSigma(float n, Candidates* left) {
  float largest = -INFINITY;
  uint64_t sum = 0, squares = 0;
  uint32_t count = 0;
  for (const Candidate& c : *left) largest = std::max(largest, c.scaled);
  for (const Candidate& c : *left) {
    if (c.scaled == -INFINITY) continue;
    const uint64_t distance = FixedDistance(largest - c.scaled);
    ++count;
    sum += distance;
    squares += distance * distance;
  }
  const float most = Deviations(n, count, sum, squares);
  KeepIf(left, [&](const Candidate& c) { return largest - c.scaled <= most; });
}

// The least distance from the mean surprisal that holds enough, bit by bit.
void TypicalP(float typical_p, Candidates* left) {
  uint64_t weighted = 0;
  KeepIf(left, [](const Candidate&) { return true; });
  for (const Candidate& c : *left) weighted += uint64_t{c.mass} * SurprisalOf(c.mass);
  const uint64_t total = Total(*left);
  const auto mean = static_cast<int32_t>(weighted / total);
  const auto is_within = [&](const Candidate& c, int32_t distance) {
    const MassRange range = TypicalRange(mean, distance);
    return c.mass >= range.least && c.mass <= range.most;
  };
  const auto is_enough = [&](int32_t distance) {
    uint64_t held = 0;
    for (const Candidate& c : *left) held += is_within(c, distance) ? c.mass : 0;
    return held >= NucleusMass(typical_p, total);
  };
  int32_t distance = 0;
  for (int32_t step = kMaxSurprisal; step > 0; step /= 2) {
    if (!is_enough(distance + step - 1)) distance += step;
  }
  KeepIf(left, [&](const Candidate& c) { return is_within(c, distance); });
}

void Cut(const SlotSampling& s, SampleStage stage, Candidates* left) {
  KeepIf(left, [](const Candidate&) { return true; });
  const std::vector<uint32_t> sorted = Descending(*left);
  uint32_t least = 1;
  if (stage == SampleStage::kMinP) least = MinPMass(s.min_p, sorted[0]);
  if (stage == SampleStage::kTopK && static_cast<size_t>(s.top_k) < sorted.size()) {
    least = sorted[static_cast<size_t>(s.top_k) - 1];
  }
  if (stage == SampleStage::kTopP) {
    uint64_t sum = 0;
    size_t kept = 0;
    while (sum < NucleusMass(s.top_p, Total(*left))) sum += sorted[kept++];
    least = sorted[kept - 1];
  }
  KeepIf(left, [&](const Candidate& c) { return c.mass >= least; });
}

void Xtc(float threshold, Candidates* left) {
  const uint64_t wanted = NucleusMass(threshold, Total(*left));
  uint32_t least = kUnitMass;
  for (const Candidate& c : *left) least = c.mass >= wanted ? std::min(least, c.mass) : least;
  KeepIf(left, [&](const Candidate& c) { return c.mass <= least; });
}

void Apply(const SlotSampling& s, SampleStage stage, int position, Candidates* left) {
  if (stage == SampleStage::kTemperature) Temper(s, /*neutral=*/false, left);
  if (stage == SampleStage::kTopNSigma && s.top_n_sigma > 0) TopNSigma(s.top_n_sigma, left);
  if (stage == SampleStage::kTypicalP && s.typical_p < 1) TypicalP(s.typical_p, left);
  if ((stage == SampleStage::kMinP && s.min_p > 0) ||
      (stage == SampleStage::kTopK && s.top_k > 0) ||
      (stage == SampleStage::kTopP && s.top_p < 1)) {
    Cut(s, stage, left);
  }
  if (stage == SampleStage::kXtc && s.xtc_threshold <= kMaxXtcThreshold &&
      XtcHappens(s.seed, s.sequence, position, s.xtc_probability)) {
    Xtc(s.xtc_threshold, left);
  }
}

int32_t Draw(const SlotSampling& s, int position, const std::vector<float>& logits) {
  Candidates left;
  for (size_t id = 0; id < logits.size(); ++id) {
    if (logits[id] > -INFINITY) left.push_back({static_cast<int32_t>(id), logits[id], 0, 0});
  }
  static constexpr uint8_t kDefault[kSampleStages] = {0, 1, 2, 3, 4, 5, 6};
  const uint8_t* order = s.has_stages != 0 ? s.order : kDefault;
  if (order[0] != 0) Temper(s, /*neutral=*/true, &left);
  for (int i = 0; i < kSampleStages; ++i) {
    Apply(s, static_cast<SampleStage>(order[i]), position, &left);
  }
  uint64_t rest = ScaleToTotal(DrawBits(s.seed, s.sequence, position), Total(left));
  auto drawn = left.begin();
  while (rest >= drawn->mass) rest -= (drawn++)->mass;
  return drawn->id;
}

void Logprobs(const SampleArgs& args, int row, const std::vector<float>& raw, int wanted,
              SampleOutput* out) {
  const double top = *std::max_element(raw.begin(), raw.end());
  double sum = 0;
  for (float x : raw) sum += std::exp(x - top);
  const double log_sum = top + std::log(sum);
  const float chosen = raw[static_cast<size_t>(out->token)];
  out->logprob = static_cast<float>(chosen - log_sum);
  out->rank = 1 + static_cast<int32_t>(
                      std::count_if(raw.begin(), raw.end(), [&](float x) { return x > chosen; }));
  if (args.top == nullptr) return;
  std::vector<int32_t> order(raw.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return raw[static_cast<size_t>(a)] > raw[static_cast<size_t>(b)];
  });
  const int count = std::min({wanted, kMaxTopLogprobs, args.vocabulary});
  for (int i = 0; i < count; ++i) {
    const int32_t id = order[static_cast<size_t>(i)];
    args.top[static_cast<size_t>(row) * kMaxTopLogprobs + static_cast<size_t>(i)] = {
        id, static_cast<float>(raw[static_cast<size_t>(id)] - log_sum)};
  }
}

}  // namespace

void Sample(const SampleArgs& args) {
  for (int row = 0; row < args.rows; ++row) {
    const int slot = args.slot[row];
    if (slot < 0) continue;
    const SlotSampling& s = args.sampling[slot];
    SampleOutput out = {0, SampleStatus::kOk, 0.0f, 0};
    const std::vector<float> raw = RawLogits(args, row);
    std::vector<float> logits = raw;
    if (std::any_of(raw.begin(), raw.end(), [](float x) { return !(x < INFINITY); })) {
      out.status = SampleStatus::kNotFinite;
    } else if (args.score_token != nullptr) {
      out.token = args.score_token[row];
    } else {
      Adjust(args, row, &logits);
      const auto best = std::max_element(logits.begin(), logits.end());
      if (*best == -INFINITY) {
        out.status = SampleStatus::kNothingAllowed;
      } else if (s.temperature < kGreedyTemperature && s.has_dynamic_temperature == 0) {
        out.token = static_cast<int32_t>(best - logits.begin());
      } else {
        out.token = Draw(s, args.position[row], logits);
      }
    }
    const bool scores = args.score_token != nullptr;
    if (out.status == SampleStatus::kOk) {
      if (s.top_logprobs >= 0 || scores) Logprobs(args, row, raw, s.top_logprobs, &out);
      if (s.tracks_tokens != 0 && !scores) {
        args.token_use[static_cast<size_t>(slot) * raw.size() + static_cast<size_t>(out.token)] +=
            1;
      }
    }
    if (out.status == SampleStatus::kOk && s.has_history != 0 && !scores &&
        args.position[row] < args.history_stride) {
      args.history[slot * args.history_stride + args.position[row]] = out.token;
    }
    args.out[row] = out;
    if (args.slot_token != nullptr && !scores) args.slot_token[slot] = out.token;
  }
}

void TokenUse(const TokenUseArgs& args) {
  std::fill_n(args.line, args.vocabulary, 0u);
  const auto is_known = [&](int32_t id) { return id >= 0 && id < args.vocabulary; };
  for (int i = 0; i < args.output_count; ++i) {
    if (is_known(args.output[i])) args.line[args.output[i]] += 1;
  }
  for (int i = 0; i < args.prompt_count; ++i) {
    if (is_known(args.prompt[i])) args.line[args.prompt[i]] |= kInPrompt;
  }
  for (int i = 0; i < args.stop_count; ++i) {
    if (is_known(args.stop[i])) args.line[args.stop[i]] |= kIsStop;
  }
}

}  // namespace behemoth::kernels::reference
