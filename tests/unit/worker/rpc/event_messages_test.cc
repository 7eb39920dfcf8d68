#include "worker/rpc/event_messages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace behemoth::worker {
namespace {

using testing::ElementsAre;

TEST(CoalesceTest, TokensOfOneSequenceBecomeOneMessageInOrder) {
  TokenEvent last = TokensEvent{.sequence = 1, .ids = {7}, .logprobs = {{.logprob = -1}}};
  TokenEvent next = TokensEvent{.sequence = 1, .ids = {8, 9}, .logprobs = {{}, {.rank = 3}}};
  ASSERT_TRUE(Coalesce(next, &last));
  v1::GenerateResponse message;
  ToMessage(last, &message);
  EXPECT_EQ(message.tokens().sequence(), 1u);
  EXPECT_THAT(message.tokens().ids(), ElementsAre(7, 8, 9));
  ASSERT_EQ(message.tokens().logprobs_size(), 3);
  EXPECT_EQ(message.tokens().logprobs(0).logprob(), -1);
  EXPECT_EQ(message.tokens().logprobs(2).rank(), 3u);
}

TEST(CoalesceTest, TheNewestProgressReplacesTheOneBefore) {
  TokenEvent last = ProgressEvent{.prefilled_tokens = 10};
  TokenEvent next = ProgressEvent{.prefilled_tokens = 20};
  ASSERT_TRUE(Coalesce(next, &last));
  EXPECT_EQ(std::get<ProgressEvent>(last).prefilled_tokens, 20);
}

TEST(CoalesceTest, OtherSequencesFinishesAndOtherKindsStayApart) {
  TokenEvent tokens = TokensEvent{.sequence = 0, .ids = {1}};
  TokenEvent other = TokensEvent{.sequence = 1, .ids = {2}};
  TokenEvent progress = ProgressEvent{};
  TokenEvent finish = FinishEvent{};
  EXPECT_FALSE(Coalesce(other, &tokens));
  EXPECT_FALSE(Coalesce(progress, &tokens));
  EXPECT_FALSE(Coalesce(tokens, &progress));
  EXPECT_FALSE(Coalesce(finish, &finish));
  EXPECT_THAT(std::get<TokensEvent>(tokens).ids, ElementsAre(1));
}

TEST(CoalesceTest, WhatIsMergedWeighsWhatItsPartsAdded) {
  TokenEvent last = TokensEvent{.ids = {1}};
  TokenEvent next =
      TokensEvent{.ids = {2}, .logprobs = {{.top_ids = {1, 2}, .top_logprobs = {-1, -2}}}};
  const size_t added = BytesOf(next) - sizeof(TokenEvent);
  const size_t before = BytesOf(last);
  ASSERT_TRUE(Coalesce(next, &last));
  EXPECT_EQ(BytesOf(last), before + added);
}

TEST(ToMessageTest, AFinishCarriesReasonUsageAndTimings) {
  v1::GenerateResponse message;
  ToMessage(FinishEvent{.sequence = 2,
                        .reason = FinishReason::kStop,
                        .matched_stop_id = 0,
                        .prompt_tokens = 5,
                        .cached_tokens = 4,
                        .completion_tokens = 3,
                        .queue_time = absl::Milliseconds(1.5),
                        .preemptions = 1},
            &message);
  const v1::Finish& finish = message.finish();
  EXPECT_EQ(finish.sequence(), 2u);
  EXPECT_EQ(finish.reason(), v1::Finish::REASON_STOP);
  EXPECT_TRUE(finish.has_matched_stop_id()) << "id 0 is an id";
  EXPECT_EQ(finish.usage().prompt_tokens(), 5u);
  EXPECT_EQ(finish.usage().cached_tokens(), 4u);
  EXPECT_EQ(finish.usage().completion_tokens(), 3u);
  EXPECT_DOUBLE_EQ(finish.timings().queue_ms(), 1.5);
  EXPECT_EQ(finish.timings().preemptions(), 1u);
}

}  // namespace
}  // namespace behemoth::worker
