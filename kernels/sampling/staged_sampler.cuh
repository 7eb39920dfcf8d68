// A row with every sampler, in the order that its request asks for. Its lines stay in L2: the
// adjusted logits in one, the masses in the other; a stage is a few sweeps of a line. Definitions:
// worker/sampling/README.md.
#pragma once

#include "kernels/sampling/row_sampler.cuh"
#include "kernels/sampling/stage_math.h"

namespace behemoth::kernels::rows {

class StagedSampler : public RowSampler<false> {
 public:
  __device__ StagedSampler(const SampleArgs& args, int row, SharedState* shared)
      : RowSampler<false>(args, row, shared),
        second_(Scratch(args, row, /*second=*/true)),
        logits_(second_, words_.sweeps()),
        history_(args.history + slot_ * args.history_stride),
        repeats_(args.repeats + slot_ * args.history_stride),
        phrases_(args.phrases + static_cast<int64_t>(slot_) * kPhraseWords) {}

  __device__ void Run() { RunAs(*this); }

 private:
  friend class RowSampler<false>;

  // A word of SampleArgs::repeats: the position of the step that wrote it over the repeat's length.
  static constexpr int kRepeatBits = 11;
  static constexpr uint32_t kRepeatMask = (1u << kRepeatBits) - 1;
  static_assert(kMaxDryAllowedLength + kMaxDryExcess <= static_cast<int>(kRepeatMask));
  static_assert(kMaxHistory << kRepeatBits <= int64_t{1} << 32);

  // ---- Before temperature -----------------------------------------------------------------------

  __device__ void Adjust() {
    const bool repeats = sampling_.has_history != 0 && FindRepeats();
    AdjustWith(repeats, [&](int id, float x, uint32_t use) {
      if (repeats && second_[id] != 0) {
        const int32_t excess = static_cast<int32_t>(second_[id]) - sampling_.dry_allowed_length;
        x = __fsub_rn(x, DryPenalty(sampling_.dry_multiplier, sampling_.dry_base, excess));
      }
      return Penalize(x, use);
    });
    if (sampling_.has_history != 0 && position_ > 0) BanCompletions();
  }

  __device__ bool EndsWith(const int32_t* ids, int count) const {
    if (count > position_) return false;
    for (int back = 1; back <= count; ++back) {
      if (ids[count - back] != history_[position_ - back]) return false;
    }
    return true;
  }

  // A thread for each sequence: what stands before its last id nearly never fits.
  __device__ void BanCompletions() {
    uint32_t* words = Scratch(args_, row_);
    __syncthreads();
    for (int i = threadIdx.x; i < sampling_.banned_sequences; i += kThreads) {
      const int32_t* ids = phrases_ + phrases_[i];
      const int last = phrases_[i + 1] - phrases_[i] - 1;
      if (EndsWith(ids, last)) words[ids[last]] = 0xff800000u;
    }
    __syncthreads();
  }

  __device__ bool IsHead(int list, int32_t id) const {
    for (int i = phrases_[list]; i < phrases_[list + 1]; ++i) {
      if (phrases_[i] == id) return true;
    }
    return false;
  }

  __device__ bool IsBreaker(int32_t id) const {
    const size_t words = (static_cast<size_t>(args_.vocabulary) + 31) / 32;
    return (args_.breakers[static_cast<size_t>(slot_) * words + id / 32] >> (id % 32) & 1) != 0;
  }

  // Behind the last breaker; remembered, so that a step looks at its own last token only.
  __device__ int32_t BreakerEnd() {
    const int32_t known = args_.breaker_end[slot_];
    bool ends = IsBreaker(history_[position_ - 1]);
    for (int i = threadIdx.x; i < sampling_.spanning_breakers && !ends; i += kThreads) {
      const int heads = sampling_.banned_sequences + 2 * i;
      const int length = phrases_[heads + 2] - phrases_[heads + 1];
      ends = length < position_ && EndsWith(phrases_ + phrases_[heads + 1], length) &&
             IsHead(heads, history_[position_ - 1 - length]);
    }
    if (__syncthreads_or(ends) == 0) return known;
    if (threadIdx.x == 0) args_.breaker_end[slot_] = position_;
    return position_;
  }

  // The second line = for each id the length of the longest repeat that it would lengthen, 0 =
  // none. All threads look at the places where the last token stood. False: there is no repeat.
  __device__ bool FindRepeats() {
    if (sampling_.dry_multiplier <= 0.0f || position_ == 0) return false;
    const int32_t allowed = sampling_.dry_allowed_length, length = position_;
    const int32_t start = sampling_.dry_last_n > 0 ? max(0, length - sampling_.dry_last_n) : 0;
    const int32_t most = min(length - max(start, BreakerEnd()), allowed + kMaxDryExcess);
    if (most < allowed) return false;
    logits_.Transform([](int, uint4) { return make_uint4(0, 0, 0, 0); });
    __syncthreads();
    bool found = false;
    const int32_t last = history_[length - 1];
    constexpr int kAtOnce = 8;  // loads on their way: the ids come from beyond L2
    for (int32_t first = start + static_cast<int32_t>(threadIdx.x); first < length - 1;
         first += kAtOnce * kThreads) {
      uint32_t places = 0;
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int32_t at = first + i * kThreads;
        if (at < length - 1 && history_[at] == last) places |= 1u << i;
      }
      for (; places != 0; places &= places - 1) {
        const int32_t at = first + (__ffs(static_cast<int>(places)) - 1) * kThreads;
        const int32_t repeated = RepeatAt(at, min(most, at + 1 - start));
        if (repeated < allowed || IsBreaker(history_[at + 1])) continue;
        uint32_t* const longest = second_ + history_[at + 1];
        if (*longest < static_cast<uint32_t>(repeated)) {
          atomicMax(longest, static_cast<uint32_t>(repeated));
        }
        found = true;
      }
    }
    return __syncthreads_or(found) != 0;
  }

  // How many tokens up to `at`, where the last token stood, equal the sequence's last ones; at most
  // `bound`. At this distance the step before has found one less, or it has not looked: then they
  // are counted. From a step to the next `bound` grows by one at most, so the one that cut the
  // remembered number short does no harm.
  __device__ int32_t RepeatAt(int32_t at, int32_t bound) {
    uint32_t* const known = repeats_ + (position_ - 1 - at);
    int32_t repeated = 1;
    if (*known >> kRepeatBits == static_cast<uint32_t>(position_ - 1)) {
      repeated = min(static_cast<int32_t>(*known & kRepeatMask) + 1, bound);
    } else {
      while (repeated < bound && history_[at - repeated] == history_[position_ - 1 - repeated]) {
        ++repeated;
      }
    }
    *known = static_cast<uint32_t>(position_) << kRepeatBits | static_cast<uint32_t>(repeated);
    return repeated;
  }

  // ---- From temperature on ----------------------------------------------------------------------

  __device__ int32_t Draw(float) {
    logits_.Transform([&](int sweep, uint4) { return words_.Sweep(sweep); });
    if (sampling_.order[0] != static_cast<uint8_t>(SampleStage::kTemperature)) Temper(true);
    for (int i = 0; i < kSampleStages; ++i) Apply(static_cast<SampleStage>(sampling_.order[i]));
    return InverseCdf(least_);
  }

  __device__ void Apply(SampleStage stage) {
    switch (stage) {
      case SampleStage::kTemperature:
        return Temper(false);
      case SampleStage::kTopNSigma:
        if (sampling_.top_n_sigma > 0.0f) TopNSigma();
        return;
      case SampleStage::kTypicalP:
        if (sampling_.typical_p < 1.0f) TypicalP();
        return;
      case SampleStage::kMinP:
        if (sampling_.min_p > 0.0f) Cut(max(least_, MinPMass(sampling_.min_p, largest_)));
        return;
      case SampleStage::kTopK:
        if (sampling_.top_k > 0) TopK();
        return;
      case SampleStage::kTopP:
        if (sampling_.top_p < 1.0f) {
          const Sum all = SumFrom(least_);
          Cut(LargestThreshold(least_, all, 0, NucleusMass(sampling_.top_p, all.mass)));
        }
        return;
      case SampleStage::kXtc:
        if (sampling_.xtc_threshold <= kMaxXtcThreshold &&
            XtcHappens(sampling_.seed, sampling_.sequence, position_, sampling_.xtc_probability)) {
          Xtc();
        }
        return;
    }
  }

  __device__ void Cut(uint32_t least) {
    least_ = least;
    is_cut_ = true;
  }

  __device__ void TopK() {
    const Sum all = SumFrom(least_);
    const uint32_t k = static_cast<uint32_t>(sampling_.top_k);
    Cut(all.count > k ? LargestThreshold(least_, all, k, 0) : least_);
  }

  // keep(logit, mass), else the mass becomes 0.
  template <typename Keep>
  __device__ void KeepIf(Keep keep) {
    words_.Transform([&](int sweep, uint4 word) {
      const uint4 logit = logits_.Sweep(sweep);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if (!keep(__uint_as_float(Word(logit, e)), Word(word, e))) Word(word, e) = 0;
      }
      return word;
    });
    is_cut_ = true;
  }

  // visit(logit, mass) of the tokens that are left.
  template <typename Visit>
  __device__ void ForEachLeft(Visit visit) const {
    words_.ForEach([&](int sweep, const uint4& word) {
      const uint4 logit = logits_.Sweep(sweep);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float x = __uint_as_float(Word(logit, e));
        const bool is_left = !is_cut_ || Word(word, e) >= least_;
        if (is_left && x > -INFINITY) visit(x, Word(word, e));
      }
    });
  }

  __device__ float Scaled(float logit) const {
    return Smooth(__fmul_rn(__fsub_rn(logit, top_), inverse_), smoothing_,
                  sampling_.smoothing_curve);
  }
  __device__ float LargestScaled() {
    uint64_t best = 0;
    ForEachLeft([&](float x, uint32_t) { best = max(best, KeyOf(Scaled(x), 0)); });
    return ValueOfKey(reduce_.Max(best));
  }

  __device__ float Temperature() {
    if (sampling_.has_dynamic_temperature == 0)
      return max(sampling_.temperature, kGreedyTemperature);
    Entropy mine = {0, 0, 0};
    ForEachLeft([&](float x, uint32_t) {
      const uint32_t mass = MassOf(__fsub_rn(x, top_));
      ++mine.count;
      mine.total += mass;
      if (mass > 0) mine.weighted += static_cast<uint64_t>(mass) * SurprisalOf(mass);
    });
    const Entropy all = {reduce_.AddWide(mine.total), reduce_.AddWide(mine.weighted),
                         static_cast<uint32_t>(reduce_.AddWide(mine.count))};
    return DynamicTemperatureOf(
        all, {sampling_.dynamic_low, sampling_.dynamic_high, sampling_.dynamic_exponent},
        kGreedyTemperature);
  }

  // Masses of what is left, at the request's temperature or, `neutral`, at 1.
  __device__ void Temper(bool neutral) {
    uint64_t best = 0;
    ForEachLeft([&](float x, uint32_t) { best = max(best, KeyOf(x, 0)); });
    top_ = ValueOfKey(reduce_.Max(best));
    inverse_ = neutral ? 1.0f : 1.0f / Temperature();
    smoothing_ = neutral ? 0.0f : sampling_.smoothing_factor;
    const float largest = smoothing_ > 0.0f ? LargestScaled() : 0.0f;
    const bool was_cut = is_cut_;
    const uint32_t least = least_;
    words_.Transform([&](int sweep, uint4 word) {
      const uint4 logit = logits_.Sweep(sweep);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float x = __uint_as_float(Word(logit, e));
        const bool is_left = !was_cut || Word(word, e) >= least;
        Word(word, e) = is_left ? MassOf(__fsub_rn(Scaled(x), largest)) : 0;
      }
      return word;
    });
    least_ = 1;
    largest_ = kUnitMass;
  }

  __device__ void TopNSigma() {
    const float largest = LargestScaled();
    uint64_t sum = 0, squares = 0;
    uint32_t count = 0;
    ForEachLeft([&](float x, uint32_t) {
      const float z = Scaled(x);
      if (!(z > -INFINITY)) return;
      const uint64_t distance = FixedDistance(__fsub_rn(largest, z));
      ++count;
      sum += distance;
      squares += distance * distance;
    });
    count = static_cast<uint32_t>(reduce_.AddWide(count));
    sum = reduce_.AddWide(sum);
    const float most = Deviations(sampling_.top_n_sigma, count, sum, reduce_.AddWide(squares));
    KeepIf([&](float x, uint32_t mass) {
      return mass >= least_ && !(__fsub_rn(largest, Scaled(x)) > most);
    });
  }

  __device__ void TypicalP() {
    uint64_t total = 0, weighted = 0;
    words_.ForEach([&](int, const uint4& word) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const uint32_t mass = Word(word, e);
        if (mass < least_) continue;
        total += mass;
        weighted += static_cast<uint64_t>(mass) * SurprisalOf(mass);
      }
    });
    total = reduce_.AddWide(total);
    const int32_t mean = static_cast<int32_t>(reduce_.AddWide(weighted) / total);
    const uint64_t wanted = NucleusMass(sampling_.typical_p, total);
    int32_t low = 0, high = kMaxSurprisal;  // `high` holds enough
    while (low < high) {
      const int32_t middle = (low + high) / 2;
      if (MassWithin(TypicalRange(mean, middle)) >= wanted) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    const MassRange range = TypicalRange(mean, high);
    KeepIf([&](float, uint32_t mass) {
      return mass >= max(range.least, least_) && mass <= range.most;
    });
    largest_ = LargestMass([](uint32_t mass) { return mass; });
  }

  __device__ uint64_t MassWithin(MassRange range) {
    uint64_t sum = 0;
    const uint32_t least = max(range.least, least_);
    words_.ForEach([&](int, const uint4& word) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const uint32_t mass = Word(word, e);
        if (mass >= least && mass <= range.most) sum += mass;
      }
    });
    return reduce_.AddWide(sum);
  }

  // The largest value(mass).
  template <typename Value>
  __device__ uint32_t LargestMass(Value value) {
    uint64_t best = 0;
    words_.ForEach([&](int, const uint4& word) {
#pragma unroll
      for (int e = 0; e < 4; ++e) best = max(best, static_cast<uint64_t>(value(Word(word, e))));
    });
    return static_cast<uint32_t>(reduce_.Max(best));
  }

  __device__ void Xtc() {
    const uint64_t wanted = max(static_cast<uint64_t>(least_),
                                NucleusMass(sampling_.xtc_threshold, SumFrom(least_).mass));
    // The least of the likely ones; a mass is at most 2^31, so 0 says that there is none.
    const uint32_t found = LargestMass([&](uint32_t mass) { return mass >= wanted ? ~mass : 0u; });
    const uint32_t least = found == 0 ? kUnitMass : ~found;
    KeepIf([&](float, uint32_t mass) { return mass >= least_ && mass <= least; });
    largest_ = LargestMass([](uint32_t mass) { return mass; });
  }

  uint32_t* const second_;
  RowWords<false> logits_;
  const int32_t* const history_;
  uint32_t* const repeats_;  // by the distance from the last token
  const int32_t* const phrases_;
  float top_ = 0.0f, inverse_ = 1.0f, smoothing_ = 0.0f;  // what the masses stand for
  uint32_t least_ = 1;                                    // masses below it are out
  uint32_t largest_ = kUnitMass;                          // of what is left
  bool is_cut_ = false;  // a stage has removed tokens: those of mass 0 are out
};

}  // namespace behemoth::kernels::rows
