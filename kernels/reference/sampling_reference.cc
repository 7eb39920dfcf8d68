#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <vector>

#include "kernels/sampling/mass.h"
#include "kernels/sampling/sampling.h"

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

void Adjust(const SampleArgs& args, int row, std::vector<float>* logits) {
  const int slot = args.slot[row], position = args.position[row];
  const SlotSampling& s = args.sampling[slot];
  const size_t line = static_cast<size_t>(slot) * logits->size();
  for (size_t id = 0; id < logits->size(); ++id) {
    float& x = (*logits)[id];
    const uint32_t use = s.tracks_tokens != 0 ? args.token_use[line + id] : 0;
    if (s.has_bias != 0) x += args.bias[line + id];
    if (!IsAllowed(args, row, id)) x = -INFINITY;
    if ((use & kIsStop) != 0 && position < s.min_position) x = -INFINITY;
    const uint32_t count = use & kOutputCount;
    if (count != 0 || (use & kInPrompt) != 0) {
      x = x > 0.0f ? x / s.repetition_penalty : x * s.repetition_penalty;
    }
    if (count != 0) {
      x = std::fmaf(-s.frequency_penalty, static_cast<float>(count), x);
      x -= s.presence_penalty;
    }
  }
}

// By sorting: the masses that min_p, then top_k, then top_p keep; the others become 0.
void Truncate(const SlotSampling& s, std::vector<uint32_t>* mass) {
  const float smallest = s.min_p * static_cast<float>(kUnitMass);
  uint32_t threshold = std::max(1u, static_cast<uint32_t>(smallest));
  std::vector<uint32_t> sorted;
  std::copy_if(mass->begin(), mass->end(), std::back_inserter(sorted),
               [&](uint32_t m) { return m >= threshold; });
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  if (s.top_k > 0 && static_cast<size_t>(s.top_k) < sorted.size()) {
    threshold = sorted[static_cast<size_t>(s.top_k) - 1];
    while (sorted.back() < threshold) sorted.pop_back();
  }
  if (s.top_p < 1.0f) {
    const uint64_t total = std::accumulate(sorted.begin(), sorted.end(), uint64_t{0});
    const uint64_t wanted = NucleusMass(s.top_p, total);
    uint64_t sum = 0;
    size_t kept = 0;
    while (sum < wanted) sum += sorted[kept++];
    threshold = sorted[kept - 1];
  }
  for (uint32_t& m : *mass) m = m >= threshold ? m : 0;
}

int32_t Draw(const SlotSampling& s, int position, const std::vector<float>& logits, float top) {
  std::vector<uint32_t> mass(logits.size());
  const float inverse_temperature = 1.0f / s.temperature;
  for (size_t id = 0; id < mass.size(); ++id) {
    mass[id] = MassOf((logits[id] - top) * inverse_temperature);
  }
  Truncate(s, &mass);
  const uint64_t total = std::accumulate(mass.begin(), mass.end(), uint64_t{0});
  uint64_t rest = ScaleToTotal(DrawBits(s.seed, s.sequence, position), total);
  size_t id = 0;
  while (rest >= mass[id]) rest -= mass[id++];
  return static_cast<int32_t>(id);
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
      } else if (s.temperature < kGreedyTemperature) {
        out.token = static_cast<int32_t>(best - logits.begin());
      } else {
        out.token = Draw(s, args.position[row], logits, *best);
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
