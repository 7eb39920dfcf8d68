// Tokens taken back: in every state, with every number of steps in flight, the sequence goes on as
// if it had been told from the start what it must not say.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "tests/unit/worker/schedule/scheduler_fixture.h"

namespace behemoth::worker {
namespace {

using ::testing::SizeIs;

// What follows `kept`, alone: `banned` holds for the first token, `forced` come before any sample.
std::vector<TokenId> GoOnAlone(const GenerationRequest& request, std::vector<TokenId> kept,
                               const std::vector<TokenId>& banned,
                               const std::vector<TokenId>& forced) {
  FakePrefix prefix;
  for (const TokenId token : request.prompt) prefix.Add(token);
  FakeSampler sampler{.sampling = &request.sampling};
  const auto say = [&](TokenId token) {
    prefix.Add(token);
    sampler.Saw(token);
  };
  for (const TokenId token : kept) say(token);
  for (const TokenId token : forced) {
    if (kept.size() == static_cast<size_t>(request.max_tokens)) return kept;
    kept.push_back(token);
    say(token);
  }
  SamplingParams with_bans = request.sampling;
  with_bans.banned_ids = banned;
  sampler.sampling = forced.empty() ? &with_bans : &request.sampling;
  while (kept.size() < static_cast<size_t>(request.max_tokens)) {
    const auto position = static_cast<int32_t>(request.prompt.size() + kept.size());
    const TokenId token = sampler.Sample(prefix, position).token;
    sampler.sampling = &request.sampling;
    const auto& stops = request.sampling.stop_ids;
    if (std::find(stops.begin(), stops.end(), token) != stops.end()) return kept;
    kept.push_back(token);
    say(token);
  }
  return kept;
}

GenerationRequest Rewindable(const std::string& id, int32_t prompt_tokens, int32_t max_tokens) {
  GenerationRequest request{.request_id = id,
                            .prompt = PromptOf(prompt_tokens, 77),
                            .max_tokens = max_tokens,
                            .rewindable = true};
  request.sampling.seed = 5;
  return request;
}

TEST(RewindTest, InEveryStateTheTextGoesOnWithoutWhatWasBanned) {
  for (const int32_t depth : {1, 2}) {
    for (int32_t calls = 0; calls < 40; ++calls) {
      SchedulerFixture f({.blocks = 12,
                          .tokens_per_block = 2,
                          .max_sequences = 4,
                          .max_step_tokens = 4,
                          .pipeline_depth = depth});
      const auto other = f.Submit({.prompt_tokens = 2, .max_new_tokens = 12, .key = "other"});
      const GenerationRequest request = Rewindable("r", 5, 9);
      f.SubmitRequest(request);
      for (int32_t call = 0; call < calls; ++call) {
        if (f.steps_out() < depth && f.Plan()) continue;
        if (f.steps_out() > 0) f.Commit();
      }
      const std::vector<TokenId> heard = f.TokensOf("r");
      const size_t keep = heard.size() / 2;
      std::vector<TokenId> kept(heard.begin(), heard.begin() + static_cast<int64_t>(keep));
      std::vector<TokenId> banned;
      if (heard.size() > keep) banned.push_back(heard[keep]);
      ASSERT_TRUE(
          f.scheduler()
              .Rewind("r", {.keep_tokens = static_cast<int32_t>(keep), .banned = banned}, f.now)
              .ok());
      f.Drain();
      f.scheduler().CheckInvariants();
      EXPECT_EQ(f.TokensOf("r"), kept);
      f.RunUntilIdle();
      ASSERT_EQ(f.breach(), "") << "depth " << depth << ", call " << calls;
      EXPECT_EQ(f.TokensOf("r"), GoOnAlone(request, kept, banned, {}))
          << "depth " << depth << ", call " << calls;
      EXPECT_EQ(f.TokensOf(other), f.TokensWhenAlone(other));
      f.scheduler().CheckInvariants();
      EXPECT_EQ(f.free_blocks(), 12);  // what has finished holds nothing
      EXPECT_FALSE(f.closed("r"));
      f.now += Scheduler::kParkTime;
      f.Plan();
      EXPECT_TRUE(f.closed("r"));
      EXPECT_TRUE(f.StatusOf("r").ok());
    }
  }
}

TEST(RewindTest, BansOfOnePositionAddUpAndLaterOnesAreForgotten) {
  SchedulerFixture f({.blocks = 32, .pipeline_depth = 2});
  const GenerationRequest request = Rewindable("r", 4, 8);
  f.SubmitRequest(request);
  f.RunUntilIdle();
  std::vector<TokenId> banned;
  for (int round = 0; round < kSampledIds - 1; ++round) {
    const TokenId said = f.TokensOf("r")[3];
    // A ban further on, which the next rewind voids.
    ASSERT_TRUE(
        f.scheduler().Rewind("r", {.keep_tokens = 6, .banned = {f.TokensOf("r")[6]}}, f.now).ok());
    f.Drain();
    f.RunUntilIdle();
    const std::vector<TokenId> kept(f.TokensOf("r").begin(), f.TokensOf("r").begin() + 3);
    banned.push_back(said);
    ASSERT_TRUE(f.scheduler().Rewind("r", {.keep_tokens = 3, .banned = {said}}, f.now).ok());
    f.Drain();
    f.RunUntilIdle();
    EXPECT_EQ(f.breach(), "");
    EXPECT_EQ(f.TokensOf("r"), GoOnAlone(request, kept, banned, {}));
    EXPECT_FALSE(std::count(banned.begin(), banned.end(), f.TokensOf("r")[3]));
  }
  EXPECT_EQ(f.FinishOf("r").completion_tokens, 8);
}

TEST(RewindTest, ForcedTokensFollowWhatStays) {
  SchedulerFixture f({.blocks = 32, .pipeline_depth = 2});
  const GenerationRequest request = Rewindable("r", 4, 8);
  f.SubmitRequest(request);
  for (int step = 0; step < 6; ++step) f.Step();
  const std::vector<TokenId> kept(f.TokensOf("r").begin(), f.TokensOf("r").begin() + 2);
  const std::vector<TokenId> forced = {kFirstForcedId, kFirstForcedId + 1};
  ASSERT_TRUE(f.scheduler().Rewind("r", {.keep_tokens = 2, .forced = forced}, f.now).ok());
  f.Drain();
  f.RunUntilIdle();
  EXPECT_EQ(f.breach(), "");
  EXPECT_EQ(f.TokensOf("r"), GoOnAlone(request, kept, {}, forced));
  // More than there is room for: cut, and the sequence ends by length.
  ASSERT_TRUE(f.scheduler().Rewind("r", {.keep_tokens = 7, .forced = forced}, f.now).ok());
  f.Drain();
  EXPECT_EQ(f.FinishOf("r").reason, FinishReason::kLength);
  EXPECT_THAT(f.TokensOf("r"), SizeIs(8));
}

TEST(RewindTest, SequencesOfOneRequestAreRewoundEachAlone) {
  SchedulerFixture f({.blocks = 32, .pipeline_depth = 2});
  GenerationRequest request = Rewindable("r", 5, 8);
  request.num_sequences = 3;
  f.SubmitRequest(request);
  for (int step = 0; step < 5; ++step) f.Step();
  const TokenId said = f.TokensOf("r", 1)[1];
  ASSERT_TRUE(
      f.scheduler().Rewind("r", {.sequence = 1, .keep_tokens = 1, .banned = {said}}, f.now).ok());
  f.Drain();
  f.RunUntilIdle();
  EXPECT_EQ(f.breach(), "");
  EXPECT_NE(f.TokensOf("r", 1)[1], said);
  EXPECT_THAT(f.TokensOf("r", 1), SizeIs(8));
  for (const int32_t sequence : {0, 2}) {
    EXPECT_EQ(f.TokensOf("r", sequence), f.TokensWhenAlone("r", sequence));
  }
  EXPECT_EQ(f.free_blocks(), 32);
}

TEST(RewindTest, WhatCannotBeIsRefusedAndChangesNothing) {
  SchedulerFixture f({.blocks = 32});
  GenerationRequest request = Rewindable("r", 4, 6);
  request.sampling.allowed_ids = {0, 1, 2, 3};
  f.SubmitRequest(request);
  const auto plain = f.Submit({.prompt_tokens = 3});
  const auto refused = [&](const std::string& id, Rewind rewind) {
    return f.scheduler().Rewind(id, std::move(rewind), f.now);
  };
  EXPECT_TRUE(absl::IsNotFound(refused("nobody", {})));
  EXPECT_TRUE(absl::IsInvalidArgument(refused(plain, {})));
  EXPECT_TRUE(absl::IsInvalidArgument(refused("r", {.sequence = 1})));
  EXPECT_TRUE(absl::IsInvalidArgument(refused("r", {.sequence = -1})));
  EXPECT_TRUE(absl::IsInvalidArgument(refused("r", {.keep_tokens = 1})));
  EXPECT_TRUE(absl::IsInvalidArgument(refused("r", {.banned = {0, 1, 2, 3}})));
  EXPECT_TRUE(absl::IsInvalidArgument(refused("r", {.banned = std::vector<TokenId>(1025, 0)})));
  f.RunUntilIdle();
  EXPECT_TRUE(absl::IsInvalidArgument(refused("r", {.keep_tokens = 6})));  // no room behind it
  EXPECT_TRUE(absl::IsInvalidArgument(refused("r", {.keep_tokens = 7})));
  EXPECT_EQ(f.TokensOf("r"), f.TokensWhenAlone("r"));
  ASSERT_TRUE(f.scheduler().Cancel("r", f.now).ok());
  f.Drain();
  EXPECT_TRUE(f.closed("r"));
  EXPECT_TRUE(absl::IsNotFound(refused("r", {})));
  EXPECT_EQ(f.breach(), "");
}

TEST(RewindTest, ARewoundStopIsNoEnd) {
  SchedulerFixture f({.blocks = 32, .pipeline_depth = 2});
  GenerationRequest request = Rewindable("r", 4, 12);
  request.sampling.stop_ids = {2};
  f.SubmitRequest(request);
  f.RunUntilIdle();
  ASSERT_EQ(f.FinishOf("r").reason, FinishReason::kStop);
  const std::vector<TokenId> kept = f.TokensOf("r");
  const auto keep = static_cast<int32_t>(kept.size());
  ASSERT_TRUE(f.scheduler().Rewind("r", {.keep_tokens = keep, .banned = {2}}, f.now).ok());
  f.Drain();
  f.RunUntilIdle();
  EXPECT_EQ(f.breach(), "");
  EXPECT_GT(f.TokensOf("r").size(), kept.size());
  EXPECT_EQ(f.TokensOf("r"), GoOnAlone(request, kept, {2}, {}));
}

// Crowds in small pools, so that rewinds meet preemptions, shared blocks and each other.
TEST(RewindTest, InACrowdEveryTextIsTheOneOfTheSequenceAlone) {
  for (uint32_t seed = 0; seed < 3000; ++seed) {
    std::mt19937 random(seed);
    const auto roll = [&](int32_t most) { return static_cast<int32_t>(random() % (most + 1)); };
    const int32_t depth = 1 + roll(1);
    SchedulerFixture f({.blocks = 14 + roll(6),
                        .tokens_per_block = 1 + roll(2),
                        .context_tokens = 14,
                        .max_sequences = 4,
                        .max_step_tokens = 4 + roll(12),
                        .pipeline_depth = depth,
                        .prefix_caching = roll(3) > 0});
    struct Last {
      GenerationRequest request;
      std::vector<TokenId> kept, forced;
      std::map<size_t, std::vector<TokenId>> bans;  // by position
    };
    std::vector<Last> requests;
    for (int i = 0; i < 5; ++i) {
      GenerationRequest request = Rewindable("r" + std::to_string(i), 1 + roll(4), 1 + roll(8));
      request.sampling.seed = static_cast<uint64_t>(roll(2));
      if (roll(1) == 0) request.sampling.stop_ids = {roll(3)};
      requests.push_back({request, {}, {}, {}});
      f.SubmitRequest(request);
    }
    for (int turn = 0; turn < 120; ++turn) {
      const int32_t what = roll(9);
      if (what < 2) {
        Last& last = requests[static_cast<size_t>(roll(4))];
        const std::string& id = last.request.request_id;
        const std::vector<TokenId> heard = f.TokensOf(id);
        const size_t keep = static_cast<size_t>(roll(static_cast<int32_t>(heard.size())));
        if (keep == static_cast<size_t>(last.request.max_tokens)) continue;
        std::erase_if(last.bans, [&](const auto& at) { return at.first > keep; });
        std::vector<TokenId>& there = last.bans[keep];
        std::vector<TokenId> banned;
        if (keep < heard.size() && heard[keep] < kFirstForcedId && there.size() < 3) {
          banned.push_back(heard[keep]);
          there.push_back(heard[keep]);
        }
        last.kept.assign(heard.begin(), heard.begin() + static_cast<int64_t>(keep));
        last.forced.clear();
        if (roll(3) == 0) last.forced = {kFirstForcedId + roll(3)};
        const absl::Status done = f.scheduler().Rewind(
            id,
            {.keep_tokens = static_cast<int32_t>(keep), .banned = banned, .forced = last.forced},
            f.now);
        ASSERT_TRUE(done.ok()) << done;
        f.Drain();
        f.scheduler().CheckInvariants();
      } else if (f.steps_out() < depth && what < 6) {
        f.Plan();
      } else if (f.steps_out() > 0) {
        f.Commit();
      }
    }
    f.RunUntilIdle();
    ASSERT_EQ(f.breach(), "") << "seed " << seed;
    for (Last& last : requests) {
      EXPECT_EQ(f.TokensOf(last.request.request_id),
                GoOnAlone(last.request, last.kept, last.bans[last.kept.size()], last.forced))
          << "seed " << seed << " " << last.request.request_id;
      ASSERT_TRUE(f.scheduler().Cancel(last.request.request_id, f.now).ok());
      f.Drain();
    }
    f.scheduler().CheckInvariants();
    EXPECT_TRUE(f.scheduler().idle());
  }
}

}  // namespace
}  // namespace behemoth::worker
