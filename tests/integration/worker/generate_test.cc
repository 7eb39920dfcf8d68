#include <absl/strings/str_cat.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "tests/integration/worker/worker_fixture.h"

namespace behemoth::worker {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

class GenerateTest : public WorkerFixture {
 protected:
  GenerateTest() { EnterReady(); }

  bool HoldsBlocks() const {
    const LoadSnapshot load = engine_->load();
    return load.steps == 0 || load.free_blocks < load.blocks;
  }
};

TEST_F(GenerateTest, AStreamIsProgressTokensFinishOk) {
  const auto request = Request("one", 40);
  const Outcome outcome = Generate(request);
  EXPECT_TRUE(outcome.status.ok()) << outcome.status.error_message();
  ASSERT_THAT(outcome.tokens, SizeIs(1));
  EXPECT_EQ(outcome.tokens[0], Alone(request));
  ASSERT_FALSE(outcome.progress.empty());
  EXPECT_EQ(outcome.progress.back().prompt_tokens(), 20u);
  ASSERT_EQ(outcome.finishes.size(), 1u);
  EXPECT_EQ(outcome.finishes[0].reason(), v1::Finish::REASON_LENGTH);
  EXPECT_EQ(outcome.finishes[0].usage().prompt_tokens(), 20u);
  EXPECT_EQ(outcome.finishes[0].usage().completion_tokens(), 40u);
  EXPECT_GT(outcome.finishes[0].timings().first_token_ms(), 0);
}

TEST_F(GenerateTest, SequencesOfARequestComeTaggedAndEachFinishes) {
  auto request = Request("many", 12);
  request.set_num_sequences(5);
  const Outcome outcome = Generate(request);
  EXPECT_TRUE(outcome.status.ok());
  ASSERT_THAT(outcome.tokens, SizeIs(5));
  for (int32_t i = 0; i < 5; ++i) EXPECT_EQ(outcome.tokens[i], Alone(request, i)) << i;
  EXPECT_EQ(outcome.finishes.size(), 5u);
}

TEST_F(GenerateTest, ConcurrentStreamsGetTheTokensTheyGetAlone) {
  constexpr int kRequests = 2;  // the queue's bound: more could be refused
  for (int round = 0; round < 8; ++round) {
    std::vector<Outcome> outcomes(kRequests);
    std::vector<std::thread> callers;
    for (int i = 0; i < kRequests; ++i) {
      callers.emplace_back(
          [&, i] { outcomes[i] = Generate(Request(absl::StrCat("c", round, ".", i), 30)); });
    }
    for (std::thread& caller : callers) caller.join();
    for (int i = 0; i < kRequests; ++i) {
      ASSERT_TRUE(outcomes[i].status.ok()) << outcomes[i].status.error_message();
      EXPECT_EQ(outcomes[i].tokens[0], Alone(Request(absl::StrCat("c", round, ".", i), 30)));
    }
  }
}

TEST_F(GenerateTest, ACancelledCallLeavesTheEngine) {
  grpc::ClientContext context;
  runner_.Hold(true);
  const auto reader = stub_->Generate(&context, Request("gone", 900));
  runner_.AwaitHeld();
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  StepWhile([this] { return HoldsBlocks(); });
  EXPECT_LT(engine_->load().steps, 500u);
}

TEST_F(GenerateTest, ADeadlineEndsARunningRequest) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Milliseconds(300)));
  runner_.Hold(true);
  const auto reader = stub_->Generate(&context, Request("late", 900));
  runner_.AwaitHeld();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  StepWhile([this] { return HoldsBlocks(); });
  EXPECT_LT(engine_->load().steps, 500u);
}

TEST_F(GenerateTest, AReaderThatDoesNotReadFailsAloneWithABoundedBuffer) {
  grpc::ClientContext context;
  auto slow = Request("slow", 1000);
  slow.set_num_sequences(16);
  slow.mutable_logprobs()->set_top(20);
  const auto reader = stub_->Generate(&context, slow);
  AwaitLoad([](const LoadSnapshot& load) { return load.steps > 0 && load.running_sequences == 0; });
  EXPECT_LT(engine_->load().steps, 1000u);
  const auto other = Request("quick");
  EXPECT_EQ(Generate(other).tokens[0], Alone(other));
  Outcome outcome;
  ReadAll(*reader, &outcome);
  EXPECT_EQ(outcome.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(outcome.status.error_message(), HasSubstr("too slow"));
}

TEST_F(GenerateTest, AFullQueueRefusesAtOnceAndNobodyElseIsHurt) {
  runner_.Hold(true);
  std::vector<Outcome> outcomes(4);
  std::vector<std::thread> callers;
  const auto call = [&](int i) {
    callers.emplace_back([&, i] { outcomes[i] = Generate(Request(absl::StrCat("q", i))); });
  };
  call(0);
  runner_.AwaitHeld();  // admitted: it is in the queue no longer
  for (int i = 1; i < 4; ++i) call(i);
  AwaitRefusals(1);  // while the engine hangs
  runner_.Hold(false);
  for (std::thread& caller : callers) caller.join();
  int refused = 0;
  for (size_t i = 0; i < outcomes.size(); ++i) {
    if (outcomes[i].status.ok()) {
      EXPECT_EQ(outcomes[i].tokens[0], Alone(Request(absl::StrCat("q", i))));
      continue;
    }
    ++refused;
    EXPECT_EQ(outcomes[i].status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
    EXPECT_THAT(outcomes[i].status.error_message(), HasSubstr("queue: full"));
  }
  EXPECT_EQ(refused, 1);
}

TEST_F(GenerateTest, AnIdIsInFlightOnceAndFreeAfterwards) {
  grpc::ClientContext context;
  const auto request = Request("twin", 900);
  runner_.Hold(true);
  const auto reader = stub_->Generate(&context, request);
  runner_.AwaitHeld();
  EXPECT_EQ(Generate(Request("twin")).status.error_code(), grpc::StatusCode::ALREADY_EXISTS);
  runner_.Hold(false);
  Outcome outcome;
  ReadAll(*reader, &outcome);
  EXPECT_EQ(outcome.tokens[0], Alone(request)) << "the twin left the first untouched";
  EXPECT_TRUE(Generate(Request("twin")).status.ok());
}

TEST_F(GenerateTest, NonFiniteLogitsFailThatRequestAlone) {
  auto poisoned = Request("nan", 20);
  poisoned.set_prompt_ids(3, kPoisonId);
  const Outcome outcome = Generate(poisoned);
  EXPECT_EQ(outcome.status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_TRUE(outcome.finishes.empty()) << "a failed request looks failed";
  const auto healthy = Request("fine");
  EXPECT_EQ(Generate(healthy).tokens[0], Alone(healthy));
}

TEST_F(GenerateTest, ControlForcesIdsAndCancelsWithAFinish) {
  grpc::ClientContext context;
  runner_.Hold(true);
  const auto reader = stub_->Generate(&context, Request("steered", 900));
  v1::ControlRequest force, cancel;
  force.set_request_id("steered");
  force.mutable_force_ids()->add_ids(kFirstForcedId);
  cancel.set_request_id("steered");
  cancel.mutable_cancel();
  runner_.AwaitHeld();  // the request is in
  for (const v1::ControlRequest& request : {force, cancel}) {
    std::atomic<bool> answered = false;
    std::thread controller([&] {
      const grpc::Status status = Control(request);
      EXPECT_TRUE(status.ok()) << status.error_message();
      answered = true;
    });
    StepWhile([&] { return !answered; });  // effective at a step border
    controller.join();
  }
  Outcome outcome;
  ReadAll(*reader, &outcome);
  EXPECT_TRUE(outcome.status.ok());
  ASSERT_EQ(outcome.finishes.size(), 1u);
  EXPECT_EQ(outcome.finishes[0].reason(), v1::Finish::REASON_CANCELLED);
  EXPECT_THAT(outcome.tokens[0], testing::Contains(kFirstForcedId));
  EXPECT_EQ(Control(cancel).error_code(), grpc::StatusCode::NOT_FOUND);
}

// Finished and parked, it says another thing at the third token; the stream is the caller's to end.
TEST_F(GenerateTest, AFinishedSequenceIsRewoundAndGoesOnInTheSameStream) {
  grpc::ClientContext context;
  v1::GenerateRequest request = Request("rewound", 8);
  request.set_rewindable(true);
  const auto reader = stub_->Generate(&context, request);
  std::vector<TokenId> tokens;
  int finishes = 0, rewinds = 0;
  v1::GenerateResponse response;
  const auto read_to_finish = [&] {
    while (reader->Read(&response)) {
      for (const uint32_t id : response.tokens().ids()) tokens.push_back(static_cast<TokenId>(id));
      if (response.has_rewound()) {
        ++rewinds;
        tokens.resize(response.rewound().keep_tokens());
      }
      if (response.has_finish()) return static_cast<void>(++finishes);
    }
    ADD_FAILURE() << "the stream ended";
  };
  read_to_finish();
  ASSERT_EQ(tokens, Alone(request));
  EXPECT_FALSE(HoldsBlocks());
  const std::vector<TokenId> before = tokens;
  v1::ControlRequest rewind;
  rewind.set_request_id("rewound");
  rewind.mutable_rewind()->set_keep_tokens(3);
  rewind.mutable_rewind()->add_banned_ids(static_cast<uint32_t>(before[3]));
  ASSERT_TRUE(Control(rewind).ok());
  read_to_finish();
  EXPECT_EQ(rewinds, 1);
  EXPECT_EQ(finishes, 2);
  EXPECT_EQ(response.finish().usage().completion_tokens(), 8u);
  ASSERT_THAT(tokens, SizeIs(8));
  EXPECT_TRUE(std::equal(tokens.begin(), tokens.begin() + 3, before.begin()));
  EXPECT_NE(tokens[3], before[3]);
  rewind.mutable_rewind()->set_keep_tokens(9);
  EXPECT_EQ(Control(rewind).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  context.TryCancel();
  while (reader->Read(&response)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

}  // namespace
}  // namespace behemoth::worker
