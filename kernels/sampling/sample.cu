// The sampler: one block of 1,024 threads a row. Limit: latency; a row of 32,768 is 128 KB read
// once.
//
// A row lives in registers (32 words a thread; larger vocabularies sweep a scratch line that stays
// in L2): first as adjusted logits, then as masses, last as raw logits for the rows that want
// logprobs. Thresholds are found by bisection over masses, powers of two first; as soon as at most
// 1,024 candidates lie inside the bracket they move to one word a thread, and a round costs one
// compare and one block reduction instead of 32.
#include "kernels/common/launch.cuh"
#include "kernels/common/ptx.cuh"
#include "kernels/sampling/mass.h"
#include "kernels/sampling/sampling.h"

namespace behemoth::kernels {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;
constexpr int kSweepIds = 4 * kThreads;
constexpr int kHeldSweeps = kHeldVocabulary / kSweepIds;
constexpr int kMaxSweeps = kMaxVocabulary / kSweepIds;
static_assert(kHeldVocabulary % kSweepIds == 0 && kMaxVocabulary % kSweepIds == 0);

struct Sum {
  uint64_t mass = 0;
  uint32_t count = 0;
};

struct SharedState {
  uint64_t warp_mass[2][kWarps];
  uint32_t warp_count[2][kWarps];
  uint64_t warp_key[2][kWarps];
  uint64_t segment[kMaxSweeps * kWarps];  // mass of 128 consecutive ids
  uint32_t candidates[kThreads];
  uint32_t candidate_count;
  uint32_t chosen_segment;
  uint64_t chosen_rest;
  int32_t token;
};

// Sums over a warp by halves that cannot overflow 32 bits: up to 64 sweeps of 4 masses of 2^31.
__device__ uint64_t WarpSum(uint64_t mass) {
  const uint32_t low = __reduce_add_sync(~0u, static_cast<uint32_t>(mass & 0xffffu));
  const uint32_t high = __reduce_add_sync(~0u, static_cast<uint32_t>(mass >> 16));
  return (static_cast<uint64_t>(high) << 16) + low;
}

// Block reductions; every thread gets the result. Two sets of slots take turns, so that one barrier
// a call is enough.
class Reducer {
 public:
  __device__ explicit Reducer(SharedState* shared) : shared_(shared) {}

  __device__ Sum Add(Sum of_thread) {
    turn_ ^= 1;
    const int warp = threadIdx.x / 32, lane = threadIdx.x & 31;
    const uint64_t mass = WarpSum(of_thread.mass);
    const uint32_t count = __reduce_add_sync(~0u, of_thread.count);
    if (lane == 0) {
      shared_->warp_mass[turn_][warp] = mass;
      shared_->warp_count[turn_][warp] = count;
    }
    __syncthreads();
    uint64_t all = shared_->warp_mass[turn_][lane];
    for (int distance = 16; distance > 0; distance /= 2) {
      all += __shfl_xor_sync(~0u, all, distance);
    }
    return {all, __reduce_add_sync(~0u, shared_->warp_count[turn_][lane])};
  }

  // The largest key.
  __device__ uint64_t Max(uint64_t key) {
    turn_ ^= 1;
    const int warp = threadIdx.x / 32, lane = threadIdx.x & 31;
    for (int distance = 16; distance > 0; distance /= 2) {
      key = max(key, __shfl_xor_sync(~0u, key, distance));
    }
    if (lane == 0) shared_->warp_key[turn_][warp] = key;
    __syncthreads();
    key = shared_->warp_key[turn_][lane];
    for (int distance = 16; distance > 0; distance /= 2) {
      key = max(key, __shfl_xor_sync(~0u, key, distance));
    }
    return key;
  }

  // Sum in a fixed order.
  __device__ float AddFloat(float value) {
    turn_ ^= 1;
    const int warp = threadIdx.x / 32, lane = threadIdx.x & 31;
    for (int distance = 16; distance > 0; distance /= 2) {
      value += __shfl_xor_sync(~0u, value, distance);
    }
    if (lane == 0) shared_->warp_count[turn_][warp] = __float_as_uint(value);
    __syncthreads();
    value = __uint_as_float(shared_->warp_count[turn_][lane]);
    for (int distance = 16; distance > 0; distance /= 2) {
      value += __shfl_xor_sync(~0u, value, distance);
    }
    return value;
  }

 private:
  SharedState* shared_;
  int turn_ = 0;
};

// Order-preserving key of (value, id): larger value first, then smaller id. Values are never NaN.
__device__ uint64_t KeyOf(float value, int id) {
  const uint32_t bits = __float_as_uint(value == 0.0f ? 0.0f : value);  // -0 ties with +0
  const uint32_t ordered = bits ^ ((bits >> 31) != 0 ? 0xffffffffu : 0x80000000u);
  return (static_cast<uint64_t>(ordered) << 32) | (0xffffffffu - static_cast<uint32_t>(id));
}
__device__ float ValueOfKey(uint64_t key) {
  const uint32_t ordered = static_cast<uint32_t>(key >> 32);
  return __uint_as_float(ordered ^ ((ordered >> 31) != 0 ? 0x80000000u : 0xffffffffu));
}
__device__ int IdOfKey(uint64_t key) {
  return static_cast<int>(0xffffffffu - static_cast<uint32_t>(key));
}

// A row's words: thread t's word e of sweep j belongs to id 4 (1024 j + t) + e.
template <bool kHeld>
class RowWords {
 public:
  __device__ RowWords(uint32_t* scratch, int sweeps) : sweeps_(sweeps) {
    if constexpr (!kHeld) scratch_ = reinterpret_cast<uint4*>(scratch) + threadIdx.x;
  }
  __device__ int sweeps() const { return sweeps_; }

  // visit(sweep, word[4])
  template <typename Visit>
  __device__ void ForEach(Visit visit) const {
    if constexpr (kHeld) {
#pragma unroll
      for (int j = 0; j < kHeldSweeps; ++j) {
        if (j < sweeps_) visit(j, held_[j]);
      }
    } else {
      for (int j = 0; j < sweeps_; ++j) visit(j, scratch_[j * kThreads]);
    }
  }
  // word = change(sweep, word)
  template <typename Change>
  __device__ void Transform(Change change) {
    if constexpr (kHeld) {
#pragma unroll
      for (int j = 0; j < kHeldSweeps; ++j) {
        if (j < sweeps_) held_[j] = change(j, held_[j]);
      }
    } else {
      for (int j = 0; j < sweeps_; ++j) scratch_[j * kThreads] = change(j, scratch_[j * kThreads]);
    }
  }
  __device__ uint4 Sweep(int wanted) const {
    uint4 found = make_uint4(0, 0, 0, 0);
    if constexpr (kHeld) {
#pragma unroll
      for (int j = 0; j < kHeldSweeps; ++j) {
        if (j == wanted) found = held_[j];
      }
    } else {
      found = scratch_[wanted * kThreads];
    }
    return found;
  }

 private:
  uint4 held_[kHeld ? kHeldSweeps : 1];
  uint4* scratch_ = nullptr;
  int sweeps_;
};

__device__ uint32_t& Word(uint4& v, int e) { return reinterpret_cast<uint32_t*>(&v)[e]; }
__device__ uint32_t Word(const uint4& v, int e) { return reinterpret_cast<const uint32_t*>(&v)[e]; }
__device__ int FirstId(int sweep) { return 4 * (sweep * kThreads + static_cast<int>(threadIdx.x)); }

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

  __device__ void Run() {
    SampleOutput out = {0, SampleStatus::kOk, 0.0f, 0};
    LoadRaw();
    if (HasNonFinite()) {
      out.status = SampleStatus::kNotFinite;
    } else if (args_.score_token != nullptr) {
      out.token = args_.score_token[row_];
    } else {
      Adjust();
      const uint64_t best = Largest(~uint64_t{0});
      if (ValueOfKey(best) == -INFINITY) {
        out.status = SampleStatus::kNothingAllowed;
      } else {
        out.token =
            sampling_.temperature < kGreedyTemperature ? IdOfKey(best) : Draw(ValueOfKey(best));
      }
    }
    const bool wants_logprobs = sampling_.top_logprobs >= 0 || args_.score_token != nullptr;
    if (out.status == SampleStatus::kOk && wants_logprobs) Logprobs(&out);
    if (threadIdx.x == 0) Publish(out);
  }

 private:
  __device__ static uint32_t* Scratch(const SampleArgs& args, int row) {
    const size_t sweeps = (args.vocabulary + kSweepIds - 1) / kSweepIds;
    return args.scratch + static_cast<size_t>(row) * sweeps * kSweepIds;
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

  __device__ float AdjustOne(float x, float bias, uint32_t use) const {
    x += bias;
    if ((use & kIsStop) != 0 && position_ < sampling_.min_position) x = -INFINITY;
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
    const size_t line = static_cast<size_t>(slot_) * args_.vocabulary;
    const float* bias = sampling_.has_bias != 0 ? args_.bias : nullptr;
    const uint32_t* use = sampling_.tracks_tokens != 0 ? args_.token_use : nullptr;
    if (bias == nullptr && use == nullptr && mask_ == nullptr) return;
    words_.Transform([&](int sweep, uint4 word) {
      const int id = FirstId(sweep);
      if (id >= args_.vocabulary) return word;
      const uint32_t allowed = mask_ == nullptr ? ~0u : mask_[id / 32] >> (id % 32);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if (id + e >= args_.vocabulary) continue;
        if ((allowed >> e & 1) == 0) Word(word, e) = 0xff800000u;
        const float x =
            AdjustOne(__uint_as_float(Word(word, e)), bias == nullptr ? 0.0f : bias[line + id + e],
                      use == nullptr ? 0u : use[line + id + e]);
        Word(word, e) = __float_as_uint(x);
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
  }

  const SampleArgs& args_;
  const int row_, slot_, position_;
  const SlotSampling sampling_;
  const uint32_t* const mask_;  // the row's line, or null
  SharedState* shared_;
  Reducer reduce_;
  RowWords<kHeld> words_;
};

template <bool kHeld>
__global__ __launch_bounds__(kThreads) void SampleKernel(const __grid_constant__ SampleArgs args) {
  __shared__ SharedState shared;
  ptx::AllowSuccessor();
  ptx::WaitForPredecessor();
  const int row = blockIdx.x;
  if (args.slot[row] < 0) return;
  RowSampler<kHeld>(args, row, &shared).Run();
}

__device__ void MarkAll(const TokenUseArgs& args, const int32_t* ids, int count, uint32_t mark) {
  for (int i = threadIdx.x; i < count; i += kThreads) {
    if (ids[i] >= 0 && ids[i] < args.vocabulary) atomicOr(args.line + ids[i], mark);
  }
}

__global__ __launch_bounds__(kThreads) void TokenUseKernel(const TokenUseArgs args) {
  ptx::AllowSuccessor();
  ptx::WaitForPredecessor();
  for (int id = threadIdx.x; id < args.vocabulary; id += kThreads) args.line[id] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < args.output_count; i += kThreads) {
    const int id = args.output[i];
    if (id >= 0 && id < args.vocabulary) atomicAdd(args.line + id, 1u);
  }
  MarkAll(args, args.prompt, args.prompt_count, kInPrompt);
  MarkAll(args, args.stop, args.stop_count, kIsStop);
}

}  // namespace

KernelError LaunchSample(const SampleArgs& args, const LaunchContext& context) {
  if (args.vocabulary <= 0 || args.vocabulary > kMaxVocabulary) {
    return {kInvalidArgument, "sample: vocabulary"};
  }
  if (args.logits_stride < args.vocabulary || args.logits_stride % 8 != 0) {
    return {kInvalidArgument, "sample: logits_stride"};
  }
  if (args.logits == nullptr || args.slot == nullptr || args.position == nullptr ||
      args.sampling == nullptr || args.out == nullptr) {
    return {kInvalidArgument, "sample: pointer"};
  }
  if (args.vocabulary > kHeldVocabulary && args.scratch == nullptr) {
    return {kInvalidArgument, "sample: scratch"};
  }
  if (args.rows <= 0) return {};
  const LaunchShape shape = {dim3(args.rows), dim3(kThreads)};
  return args.vocabulary <= kHeldVocabulary ? Launch(SampleKernel<true>, shape, context, args)
                                            : Launch(SampleKernel<false>, shape, context, args);
}

KernelError LaunchTokenUse(const TokenUseArgs& args, const LaunchContext& context) {
  if (args.line == nullptr || args.vocabulary <= 0) {
    return {kInvalidArgument, "token use: line"};
  }
  return Launch(TokenUseKernel, {dim3(1), dim3(kThreads)}, context, args);
}

}  // namespace behemoth::kernels
