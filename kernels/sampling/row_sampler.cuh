// One row from raw logits to a token and its logprobs, by one block: penalties, temperature, min_p,
// top_k, top_p. What goes beyond it: staged_sampler.cuh.
#pragma once

#include "kernels/sampling/mass.h"
#include "kernels/sampling/row_words.cuh"

namespace behemoth::kernels::rows {

template <bool kHeld>
class RowSampler {
 public:
  __device__ RowSampler(const SampleArgs& args, int row, SharedState* shared)
      : args_(args),
        row_(row),
        slot_(args.slot[row]),
        position_(args.position[row]),
        sampling_(args.sampling[slot_]),
        mask_(MaskOf(args, row)),
        shared_(shared),
        reduce_(shared),
        words_(Scratch(args, row), (args.vocabulary + kSweepIds - 1) / kSweepIds) {}

  __device__ void Run() { RunAs(*this); }

 protected:
  // `self` is this object as what it is: with its own Adjust and Draw.
  template <typename Self>
  __device__ void RunAs(Self& self) {
    SampleOutput out = {0, SampleStatus::kOk, 0.0f, 0};
    LoadRaw();
    if (HasNonFinite()) {
      out.status = SampleStatus::kNotFinite;
    } else if (args_.score_token != nullptr) {
      out.token = args_.score_token[row_];
    } else {
      self.Adjust();
      const uint64_t best = Largest(~uint64_t{0});
      if (ValueOfKey(best) == -INFINITY) {
        out.status = SampleStatus::kNothingAllowed;
      } else {
        const bool greedy =
            sampling_.temperature < kGreedyTemperature && sampling_.has_dynamic_temperature == 0;
        out.token = greedy ? IdOfKey(best) : self.Draw(ValueOfKey(best));
      }
    }
    const bool wants_logprobs = sampling_.top_logprobs >= 0 || args_.score_token != nullptr;
    if (out.status == SampleStatus::kOk && wants_logprobs) Logprobs(&out);
    if (threadIdx.x == 0) Publish(out);
  }

  // The row's line, `second` the other one.
  __device__ static uint32_t* Scratch(const SampleArgs& args, int row, bool second = false) {
    const size_t sweeps = (args.vocabulary + kSweepIds - 1) / kSweepIds;
    return args.scratch + (2 * static_cast<size_t>(row) + (second ? 1 : 0)) * sweeps * kSweepIds;
  }

  __device__ static const uint32_t* MaskOf(const SampleArgs& args, int row) {
    if (args.mask == nullptr || args.mask_line[row] < 0) return nullptr;
    const size_t words = (static_cast<size_t>(args.vocabulary) + 31) / 32;
    return args.mask + static_cast<size_t>(args.mask_line[row]) * words;
  }

  // Words = raw logits; -inf past the vocabulary.
  __device__ void LoadRaw() {
    const int64_t line = args_.logits_row == nullptr ? row_ : args_.logits_row[row_];
    const int64_t first = line * args_.logits_stride;
    words_.Transform([&](int sweep, uint4) {
      const int id = FirstId(sweep);
      uint4 word = make_uint4(0xff800000u, 0xff800000u, 0xff800000u, 0xff800000u);
      if (id >= args_.vocabulary) return word;
      // The stride is a multiple of 8, so a whole group may be read; what lies past is dropped.
      if (args_.logits_are_bf16) {
        const uint2 pair =
            *reinterpret_cast<const uint2*>(static_cast<const bf16*>(args_.logits) + first + id);
        word = make_uint4(pair.x << 16, pair.x & 0xffff0000u, pair.y << 16, pair.y & 0xffff0000u);
      } else {
        word =
            *reinterpret_cast<const uint4*>(static_cast<const float*>(args_.logits) + first + id);
      }
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if (id + e >= args_.vocabulary) Word(word, e) = 0xff800000u;
      }
      return word;
    });
  }

  __device__ bool HasNonFinite() const {
    bool bad = false;
    words_.ForEach([&](int, const uint4& word) {
#pragma unroll
      for (int e = 0; e < 4; ++e) bad |= !(__uint_as_float(Word(word, e)) < INFINITY);
    });
    return __syncthreads_or(bad) != 0;
  }

  __device__ float Allow(float x, float bias, uint32_t use) const {
    x += bias;
    return (use & kIsStop) != 0 && position_ < sampling_.min_position ? -INFINITY : x;
  }
  __device__ float Penalize(float x, uint32_t use) const {
    const uint32_t count = use & kOutputCount;
    if (count != 0 || (use & kInPrompt) != 0) {
      x = x > 0.0f ? x / sampling_.repetition_penalty : x * sampling_.repetition_penalty;
    }
    if (count != 0) {
      x = fmaf(-sampling_.frequency_penalty, static_cast<float>(count), x);
      x -= sampling_.presence_penalty;
    }
    return x;
  }

  __device__ void Adjust() {
    AdjustWith(/*always=*/false, [this](int, float x, uint32_t use) { return Penalize(x, use); });
  }

  // Bans and biases, then x = penalize(id, x, use), which does nothing to an unused id unless
  // `always`.
  template <typename Penalties>
  __device__ void AdjustWith(bool always, Penalties penalize) {
    const size_t line = static_cast<size_t>(slot_) * args_.vocabulary;
    const float* bias = sampling_.has_bias != 0 ? args_.bias : nullptr;
    const uint32_t* use = sampling_.tracks_tokens != 0 ? args_.token_use : nullptr;
    if (bias == nullptr && use == nullptr && mask_ == nullptr && !always) return;
    words_.Transform([&](int sweep, uint4 word) {
      const int id = FirstId(sweep);
      if (id >= args_.vocabulary) return word;
      const uint32_t allowed = mask_ == nullptr ? ~0u : mask_[id / 32] >> (id % 32);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if (id + e >= args_.vocabulary) continue;
        if ((allowed >> e & 1) == 0) Word(word, e) = 0xff800000u;
        const uint32_t use_of_id = use == nullptr ? 0u : use[line + id + e];
        const float x = Allow(__uint_as_float(Word(word, e)),
                              bias == nullptr ? 0.0f : bias[line + id + e], use_of_id);
        Word(word, e) = __float_as_uint(penalize(id + e, x, use_of_id));
      }
      return word;
    });
  }

  // The largest (value, id) below `bound`.
  __device__ uint64_t Largest(uint64_t bound) {
    uint64_t best = 0;
    words_.ForEach([&](int sweep, const uint4& word) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const uint64_t key = KeyOf(__uint_as_float(Word(word, e)), FirstId(sweep) + e);
        if (key < bound) best = max(best, key);
      }
    });
    return reduce_.Max(best);
  }

  __device__ Sum SumFrom(uint32_t threshold) {
    Sum sum;
    words_.ForEach([&](int, const uint4& word) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if (Word(word, e) >= threshold) {
          sum.mass += Word(word, e);
          ++sum.count;
        }
      }
    });
    return reduce_.Add(sum);
  }

  // The largest threshold at or above `low` whose survivors still number at least `min_count` and
  // weigh at least `min_mass`; they do at `low`, where they are `at_low`.
  __device__ uint32_t LargestThreshold(uint32_t low, Sum at_low, uint32_t min_count,
                                       uint64_t min_mass) {
    uint32_t high = kUnitMass + 1;  // nothing survives there
    Sum at_high;
    while (high - low > 1 && at_low.count - at_high.count > kThreads) {
      const uint32_t middle = Middle(low, high);
      const Sum sum = SumFrom(middle);
      if (sum.count >= min_count && sum.mass >= min_mass) {
        low = middle;
        at_low = sum;
      } else {
        high = middle;
        at_high = sum;
      }
    }
    if (high - low <= 1) return low;
    const uint32_t mine = Gather(low, high);
    while (high - low > 1) {
      const uint32_t middle = Middle(low, high);
      const bool counts = mine >= middle;
      Sum sum = reduce_.Add({counts ? mine : 0u, counts ? 1u : 0u});
      sum.mass += at_high.mass;
      sum.count += at_high.count;
      (sum.count >= min_count && sum.mass >= min_mass ? low : high) = middle;
    }
    return low;
  }

  // Powers of two until both ends share one, then halves.
  __device__ static uint32_t Middle(uint32_t low, uint32_t high) {
    const int a = 31 - __clz(low), b = 31 - __clz(high - 1);
    return a < b ? 1u << ((a + b + 1) / 2) : low + (high - low) / 2;
  }

  // One candidate of [low, high) per thread, 0 for none; at most 1,024 exist.
  __device__ uint32_t Gather(uint32_t low, uint32_t high) {
    __syncthreads();
    shared_->candidates[threadIdx.x] = 0;
    if (threadIdx.x == 0) shared_->candidate_count = 0;
    __syncthreads();
    words_.ForEach([&](int, const uint4& word) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if (Word(word, e) >= low && Word(word, e) < high) {
          shared_->candidates[atomicAdd(&shared_->candidate_count, 1u)] = Word(word, e);
        }
      }
    });
    __syncthreads();
    return shared_->candidates[threadIdx.x];
  }

  __device__ int32_t Draw(float top) {
    const float inverse_temperature = 1.0f / sampling_.temperature;
    words_.Transform([&](int, uint4 word) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float x = __fsub_rn(__uint_as_float(Word(word, e)), top);
        Word(word, e) = MassOf(__fmul_rn(x, inverse_temperature));
      }
      return word;
    });
    uint32_t threshold =
        max(1u, static_cast<uint32_t>(__fmul_rn(sampling_.min_p, static_cast<float>(kUnitMass))));
    const bool has_top_k = sampling_.top_k > 0 && sampling_.top_k < args_.vocabulary;
    const bool has_top_p = sampling_.top_p < 1.0f;
    if (has_top_k) {
      const Sum all = SumFrom(threshold);
      const uint32_t k = static_cast<uint32_t>(sampling_.top_k);
      if (all.count > k) threshold = LargestThreshold(threshold, all, k, 0);
    }
    if (has_top_p) {
      const Sum all = SumFrom(threshold);
      threshold = LargestThreshold(threshold, all, 0, NucleusMass(sampling_.top_p, all.mass));
    }
    return InverseCdf(threshold);
  }

  __device__ int32_t InverseCdf(uint32_t threshold) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x & 31;
    words_.ForEach([&](int sweep, const uint4& word) {
      const uint64_t sum = WarpSum(MassFrom(word, threshold));
      if (lane == 0) shared_->segment[sweep * kWarps + warp] = sum;
    });
    __syncthreads();
    if (warp == 0) FindSegment();
    __syncthreads();
    const int segment = static_cast<int>(shared_->chosen_segment);
    if (warp == segment % kWarps) {
      const int sweep = segment / kWarps;
      const uint4 word = words_.Sweep(sweep);
      const uint64_t mine = MassFrom(word, threshold);
      const uint64_t before = InclusiveScan(mine) - mine;
      uint64_t rest = shared_->chosen_rest - before;
      if (shared_->chosen_rest >= before && rest < mine) {
        for (int e = 0; e < 4; ++e) {
          const uint64_t mass = Word(word, e) >= threshold ? Word(word, e) : 0;
          if (rest < mass) {
            shared_->token = FirstId(sweep) + e;
            break;
          }
          rest -= mass;
        }
      }
    }
    __syncthreads();
    return shared_->token;
  }

  __device__ static uint64_t MassFrom(const uint4& word, uint32_t threshold) {
    uint64_t sum = 0;
#pragma unroll
    for (int e = 0; e < 4; ++e) sum += Word(word, e) >= threshold ? Word(word, e) : 0u;
    return sum;
  }
  __device__ static uint64_t InclusiveScan(uint64_t value) {
    for (int distance = 1; distance < 32; distance *= 2) {
      const uint64_t below = __shfl_up_sync(~0u, value, distance);
      if (static_cast<int>(threadIdx.x & 31) >= distance) value += below;
    }
    return value;
  }

  // Warp 0: the segment in which the draw falls, and the draw's distance from its start.
  __device__ void FindSegment() {
    const int lane = threadIdx.x & 31;
    const int per_lane = words_.sweeps();  // sweeps * 32 segments over 32 lanes
    uint64_t mine = 0;
    for (int i = 0; i < per_lane; ++i) mine += shared_->segment[lane * per_lane + i];
    const uint64_t inclusive = InclusiveScan(mine);
    const uint64_t total = __shfl_sync(~0u, inclusive, 31);
    const uint64_t draw =
        ScaleToTotal(DrawBits(sampling_.seed, sampling_.sequence, position_), total);
    if (draw >= inclusive || draw < inclusive - mine) return;
    uint64_t rest = draw - (inclusive - mine);
    int segment = lane * per_lane;
    while (rest >= shared_->segment[segment]) rest -= shared_->segment[segment++];
    shared_->chosen_segment = static_cast<uint32_t>(segment);
    shared_->chosen_rest = rest;
  }

  __device__ void Logprobs(SampleOutput* out) {
    LoadRaw();
    const uint64_t first = Largest(~uint64_t{0});
    const float top = ValueOfKey(first);
    float of_thread = 0.0f, chosen = 0.0f;
    words_.ForEach([&](int sweep, const uint4& word) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        of_thread += expf(__uint_as_float(Word(word, e)) - top);
        if (FirstId(sweep) + e == out->token) {
          shared_->candidates[0] = Word(word, e);
        }
      }
    });
    const float log_sum =
        top + logf(reduce_.AddFloat(of_thread));  // its barrier publishes the word
    chosen = __uint_as_float(shared_->candidates[0]);
    Sum above;
    words_.ForEach([&](int, const uint4& word) {
#pragma unroll
      for (int e = 0; e < 4; ++e) above.count += __uint_as_float(Word(word, e)) > chosen ? 1u : 0u;
    });
    out->logprob = chosen - log_sum;
    out->rank = static_cast<int32_t>(reduce_.Add(above).count) + 1;
    const int count = min(min(sampling_.top_logprobs, kMaxTopLogprobs), args_.vocabulary);
    uint64_t key = first;
    for (int i = 0; i < count && args_.top != nullptr; ++i) {
      if (threadIdx.x == 0) {
        args_.top[static_cast<size_t>(row_) * kMaxTopLogprobs + i] = {IdOfKey(key),
                                                                      ValueOfKey(key) - log_sum};
      }
      if (i + 1 < count) key = Largest(key);
    }
  }

  __device__ void Publish(const SampleOutput& out) const {
    args_.out[row_] = out;
    if (args_.score_token != nullptr) return;
    if (args_.slot_token != nullptr) args_.slot_token[slot_] = out.token;
    if (out.status == SampleStatus::kOk && sampling_.tracks_tokens != 0 &&
        args_.token_use != nullptr) {
      args_.token_use[static_cast<size_t>(slot_) * args_.vocabulary + out.token] += 1;
    }
    if (out.status == SampleStatus::kOk && sampling_.has_history != 0 &&
        position_ < args_.history_stride) {
      args_.history[slot_ * args_.history_stride + position_] = out.token;
    }
  }

  const SampleArgs& args_;
  const int row_, slot_, position_;
  const SlotSampling sampling_;
  const uint32_t* const mask_;  // the row's line, or null
  SharedState* shared_;
  Reducer reduce_;
  RowWords<kHeld> words_;
};

}  // namespace behemoth::kernels::rows
