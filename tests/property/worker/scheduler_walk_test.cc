// Random walks over the scheduler: requests of every shape come, are cancelled, aborted, forced,
// extended and timed out at any point of any step, in pools small enough to preempt. Held against
// the naive model of request_oracle.h; the pool and the cache recount themselves all along.
#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "tests/property/worker/request_oracle.h"
#include "tests/property/worker/walk_options.h"
#include "tests/unit/worker/schedule/scheduler_fixture.h"

namespace behemoth::worker {
namespace {

SchedulerFixture::Options RollOptions(Dice& dice) {
  const int32_t tokens_per_block = dice.Between(1, 4);
  const int32_t context_blocks = dice.Between(3, 10);
  const int32_t max_sequences = dice.Between(3, 8);
  return {.blocks = context_blocks + dice.Between(0, 8),
          .tokens_per_block = tokens_per_block,
          .context_tokens = context_blocks * tokens_per_block,
          .max_sequences = max_sequences,
          .max_step_tokens = max_sequences + dice.Between(0, 24),
          .pipeline_depth = dice.Between(1, 2),
          .prefix_caching = !dice.OneIn(5),
          .itl_target = dice.OneIn(3) ? absl::Milliseconds(10) : absl::ZeroDuration(),
          .progress_interval = absl::Milliseconds(50)};
}

class Walk {
 public:
  explicit Walk(uint64_t seed)
      : dice_(seed),
        options_(RollOptions(dice_)),
        f_(options_),
        oracle_(options_.tokens_per_block, options_.pipeline_depth) {}

  // Returns what went wrong first, or nothing.
  std::string Go(int32_t steps) {
    for (int32_t turn = 0; steps_ < steps && wrong_.empty(); ++turn) {
      Turn();
      if (turn % 16 == 0) f_.scheduler().CheckInvariants();
    }
    if (wrong_.empty()) End();
    return wrong_;
  }

  int64_t steps() const { return steps_; }
  int32_t preemptions() const { return f_.preemptions(); }
  int64_t cached_tokens() const { return f_.observer().cached_tokens; }
  int64_t copies() const { return f_.runner().copies(); }
  int32_t finishes() const { return f_.observer().finishes; }

 private:
  void Turn() {
    const int32_t roll = dice_.Between(0, 99);
    if (roll < 16) {
      if (live_.size() < 10) Submit();
    } else if (roll < 18) {
      Cancel();
    } else if (roll < 19) {
      Abort();
    } else if (roll < 22) {
      ForceIds();
    } else if (roll < 23) {
      Extend();
    } else if (f_.steps_out() < options_.pipeline_depth && (f_.steps_out() == 0 || roll < 60)) {
      Plan();
    } else {
      Commit();
    }
    Settle();
  }

  std::vector<TokenId> RollPrompt() {
    const int32_t longest = options_.context_tokens - 1;
    std::vector<TokenId> prompt;
    // Follow-ups of what was said, prompts with a common beginning, and prompts like no other.
    if (!texts_.empty() && dice_.OneIn(3)) {
      prompt =
          texts_[static_cast<size_t>(dice_.Between(0, static_cast<int32_t>(texts_.size()) - 1))];
    } else if (dice_.OneIn(2)) {
      prompt = PromptOf(dice_.Between(1, longest), dice_.Between(0, 2));
    }
    const int32_t more = dice_.Between(prompt.empty() ? 1 : 0, 6);
    for (int32_t i = 0; i < more; ++i) prompt.push_back(dice_.Between(0, kSampledIds - 1));
    if (static_cast<int32_t>(prompt.size()) > longest) prompt.resize(static_cast<size_t>(longest));
    if (dice_.OneIn(40)) prompt.back() = kPoisonId;
    return prompt;
  }

  void Submit() {
    GenerationRequest request;
    request.request_id = absl::StrCat("r", ++submitted_);
    request.prompt = RollPrompt();
    const int32_t room = options_.context_tokens - static_cast<int32_t>(request.prompt.size());
    request.max_tokens = dice_.Between(1, std::min(room, dice_.OneIn(2) ? room : 8));
    request.num_sequences = dice_.OneIn(4) ? dice_.Between(2, 3) : 1;
    request.sampling.seed = static_cast<uint64_t>(dice_.Between(0, 3));
    if (dice_.OneIn(2)) request.sampling.stop_ids = {dice_.Between(0, kSampledIds - 1)};
    if (dice_.OneIn(4)) request.sampling.min_tokens = dice_.Between(1, request.max_tokens);
    if (dice_.OneIn(6)) request.sampling.top_logprobs = 0;
    request.include_stop_id = dice_.OneIn(4);
    request.prompt_logprobs = dice_.OneIn(8);
    request.cache_salt = dice_.OneIn(3) ? "salt" : "";
    request.fairness_key = absl::StrCat("key", dice_.Between(0, 2));
    request.priority = dice_.OneIn(4) ? dice_.Between(-1, 1) : 0;
    if (dice_.OneIn(10)) {
      request.deadline = f_.now + absl::Milliseconds(dice_.Between(0, 300));
    }
    live_.emplace(request.request_id, oracle_.Expect(request));
    f_.SubmitRequest(std::move(request));
  }

  Expected* RollLive() {
    if (live_.empty()) return nullptr;
    auto at = live_.begin();
    std::advance(at, dice_.Between(0, static_cast<int32_t>(live_.size()) - 1));
    return &at->second;
  }

  void Cancel() {
    Expected* expected = RollLive();
    if (expected == nullptr) return;
    expected->cancelled = true;
    Expect(f_.scheduler().Cancel(expected->request.request_id, f_.now).ok(), "Cancel");
    f_.Drain();
    Expect(f_.closed(expected->request.request_id), "a cancel takes effect at once");
  }

  void Abort() {
    Expected* expected = RollLive();
    if (expected == nullptr) return;
    expected->aborted = true;
    const absl::Status why = absl::AbortedError("by the walk");
    Expect(f_.scheduler().Abort(expected->request.request_id, why).ok(), "Abort");
    f_.Drain();
    Expect(f_.closed(expected->request.request_id), "an abort takes effect at once");
  }

  void ForceIds() {
    Expected* expected = RollLive();
    if (expected == nullptr) return;
    const std::string& id = expected->request.request_id;
    const int32_t sequence = dice_.Between(0, expected->request.num_sequences - 1);
    std::vector<TokenId> ids;
    for (int32_t i = dice_.Between(1, 5); i > 0; --i) ids.push_back(next_forced_++);
    const absl::Status status = f_.scheduler().ForceIds(id, sequence, ids, f_.now);
    const size_t index = static_cast<size_t>(sequence);
    const Heard& heard = f_.heard(id);
    if (status.ok()) {
      expected->forced[index].push_back({ids, heard.tokens[index].size()});
    } else {
      Expect(heard.finishes[index] ? absl::IsNotFound(status) : absl::IsInvalidArgument(status),
             "ForceIds");
    }
    f_.Drain();
  }

  void Extend() {
    Expected* expected = RollLive();
    if (expected == nullptr) return;
    GenerationRequest& request = expected->request;
    const int32_t more = dice_.Between(1, 6);
    const bool fits = static_cast<int32_t>(request.prompt.size()) + request.max_tokens + more <=
                      options_.context_tokens;
    Expect(f_.scheduler().ExtendMaxTokens(request.request_id, more).ok() == fits, "Extend");
    if (!fits) return;
    expected->earlier_lengths.push_back(request.max_tokens);
    request.max_tokens += more;
  }

  void Plan() {
    f_.now += absl::Microseconds(dice_.Between(0, 2000));
    if (!f_.Plan()) return;
    ++steps_;
    Expect(static_cast<int32_t>(f_.last_plan().token_ids.size()) <= options_.max_step_tokens,
           "a step over the budget");
    for (const auto& [id, expected] : live_) {
      Expect(f_.closed(id) || expected.request.deadline > f_.now, "alive after its deadline");
    }
  }

  void Commit() {
    if (f_.steps_out() == 0) return;
    f_.step_time = absl::Microseconds(dice_.Between(100, 15'000));
    f_.Commit();
  }

  // Judges what has been closed since.
  void Settle() {
    if (!f_.breach().empty()) Expect(false, f_.breach());
    for (auto at = live_.begin(); at != live_.end();) {
      if (!f_.closed(at->first)) {
        ++at;
        continue;
      }
      for (const auto& [id, other] : live_) oracle_.MayBeCached(other, f_.heard(id));
      Judge(at->second);
      at = live_.erase(at);
    }
  }

  void Judge(const Expected& expected) {
    const std::string& id = expected.request.request_id;
    const Heard& heard = f_.heard(id);
    const std::string wrong = oracle_.Judge(expected, heard, f_.now);
    Expect(wrong.empty(), id + ": " + wrong);
    std::vector<TokenId> text = expected.request.prompt;
    text.insert(text.end(), heard.tokens[0].begin(), heard.tokens[0].end());
    if (texts_.size() < 8) texts_.push_back({});
    texts_[static_cast<size_t>(expected.number) % texts_.size()] = std::move(text);
  }

  void End() {
    while (wrong_.empty() && f_.Step()) {
      ++steps_;
      Settle();
      Expect(steps_ < 1'000'000, "no end");
    }
    Settle();
    const LoadSnapshot load = f_.scheduler().load();
    const Dequeued dequeued = f_.scheduler().TakeDequeued();
    f_.scheduler().CheckInvariants();
    Expect(live_.empty(), "a request was never closed");
    Expect(f_.scheduler().idle(), "not idle");
    Expect(load.running_sequences == 0 && load.waiting_requests == 0, "somebody is left");
    Expect(load.waiting_tokens == 0, "waiting tokens miscounted");
    Expect(load.free_blocks == options_.blocks, "a block leaked");
    Expect(dequeued.requests == submitted_, "the queue's count leaked");
    // An end by itself wastes depth - 1 rows, one from outside the rows in flight.
    const int64_t wasted = f_.runner().samples() - oracle_.accepted();
    Expect(wasted <= oracle_.sequences() * options_.pipeline_depth, "rows wasted");
  }

  void Expect(bool condition, const std::string& what) {
    if (!condition && wrong_.empty()) wrong_ = absl::StrCat(what, " (step ", steps_, ")");
  }

  Dice dice_;
  const SchedulerFixture::Options options_;
  SchedulerFixture f_;
  RequestOracle oracle_;
  std::map<std::string, Expected> live_;
  std::vector<std::vector<TokenId>> texts_;
  int64_t steps_ = 0;
  int32_t submitted_ = 0;
  TokenId next_forced_ = kFirstForcedId;
  std::string wrong_;
};

TEST(SchedulerWalkTest, EveryTextIsItsSoloRunAndNothingLeaks) {
  const int32_t walks = Options().walks > 0 ? Options().walks : 550;
  const int32_t steps = Options().steps > 0 ? Options().steps : 2000;
  int64_t total = 0, preemptions = 0, cached_tokens = 0, copies = 0, finishes = 0;
  for (int32_t i = 0; i < walks; ++i) {
    const uint64_t seed = Options().seed + static_cast<uint64_t>(i);
    const WalkScope scope(seed, steps);
    Walk walk(seed);
    ASSERT_EQ(walk.Go(steps), "") << scope.replay();
    total += walk.steps();
    preemptions += walk.preemptions();
    cached_tokens += walk.cached_tokens();
    copies += walk.copies();
    finishes += walk.finishes();
  }
  std::printf(
      "seeds from %llu: %lld steps, %lld finishes, %lld preemptions, %lld cached tokens, "
      "%lld copies\n",
      static_cast<unsigned long long>(Options().seed), static_cast<long long>(total),
      static_cast<long long>(finishes), static_cast<long long>(preemptions),
      static_cast<long long>(cached_tokens), static_cast<long long>(copies));
  EXPECT_GE(total, int64_t{walks} * steps);
  if (total < 100'000) return;
  // The walks meet what they are for.
  EXPECT_GT(preemptions, total / 1000);
  EXPECT_GT(cached_tokens, total / 100);
  EXPECT_GT(copies, total / 1000);
}

}  // namespace
}  // namespace behemoth::worker
