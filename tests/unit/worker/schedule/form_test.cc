// Sequences whose output has a form: they wait for their masks, nobody waits for them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "tests/unit/worker/schedule/scheduler_fixture.h"

namespace behemoth::worker {
namespace {

// Its masks come when the test says so.
class FakeForm : public Form {
 public:
  void Advance(TokenId token) override {
    text.push_back(token);
    state_ = FormState::kWorking;
  }
  void Restart(std::vector<TokenId> tokens) override {
    text = std::move(tokens);
    state_ = FormState::kWorking;
  }
  FormState state() const override { return state_; }
  std::shared_ptr<const TokenMask> mask() const override { return mask_; }

  void Become(FormState state) { state_ = state; }
  std::vector<TokenId> text;

 private:
  FormState state_ = FormState::kReady;
  std::shared_ptr<const TokenMask> mask_ = std::make_shared<TokenMask>(1, ~0u);
};

GenerationRequest Formed(const std::string& id, std::shared_ptr<FakeForm> form) {
  GenerationRequest request{.request_id = id,
                            .prompt = {1, 2, 3},
                            .max_tokens = 8,
                            .rewindable = true,
                            .forms = {std::move(form)}};
  request.sampling.seed = 5;
  return request;
}

// Until the runner has nothing more to do.
void RunDry(SchedulerFixture& f) {
  while (f.Step()) {
  }
}

TEST(FormTest, ASequenceWaitsForItsMaskAndTheOthersDoNot) {
  for (const int32_t depth : {1, 2}) {
    SchedulerFixture f({.pipeline_depth = depth});
    const auto form = std::make_shared<FakeForm>();
    f.SubmitRequest(Formed("r", form));
    const auto plain = f.Submit({.prompt_tokens = 2, .max_new_tokens = 6});
    RunDry(f);  // the other one to its end
    EXPECT_TRUE(f.closed(plain));
    EXPECT_EQ(f.TokensOf(plain), f.TokensWhenAlone(plain));
    ASSERT_EQ(f.TokensOf("r").size(), 1u);
    EXPECT_EQ(form->text, f.TokensOf("r"));
    form->Become(FormState::kReady);
    RunDry(f);
    EXPECT_EQ(f.TokensOf("r").size(), 2u);
    EXPECT_EQ(form->text, f.TokensOf("r"));
    EXPECT_EQ(f.breach(), "");
  }
}

// The engine asks before each plan: a step that went now would go without the sequence.
TEST(FormTest, APlanIsPutOffForAMaskButNotForLong) {
  SchedulerFixture f({.pipeline_depth = 2});
  const auto form = std::make_shared<FakeForm>();
  f.SubmitRequest(Formed("r", form));
  const auto plain = f.Submit({.prompt_tokens = 2, .max_new_tokens = 6});
  EXPECT_LE(f.scheduler().masks_due(), f.now);
  ASSERT_TRUE(f.Plan());
  EXPECT_EQ(f.scheduler().masks_due(), absl::InfiniteFuture()) << "its token is on the device";
  f.Commit();
  EXPECT_EQ(f.scheduler().masks_due(), f.now + Scheduler::kMaskPatience);
  f.now += Scheduler::kMaskPatience;
  EXPECT_LE(f.scheduler().masks_due(), f.now);
  // Once late, it holds up no other step.
  ASSERT_TRUE(f.Plan());
  EXPECT_LE(f.scheduler().masks_due(), f.now);
  f.Commit();
  EXPECT_LE(f.scheduler().masks_due(), f.now);
  form->Become(FormState::kReady);
  ASSERT_TRUE(f.Plan());
  f.Commit();
  EXPECT_EQ(f.scheduler().masks_due(), f.now + Scheduler::kMaskPatience);
  form->Become(FormState::kComplete);
  EXPECT_LE(f.scheduler().masks_due(), f.now);
  RunDry(f);
  EXPECT_TRUE(f.closed(plain));
}

TEST(FormTest, ItsMaskGoesWithTheSample) {
  SchedulerFixture f({});
  const auto form = std::make_shared<FakeForm>();
  f.SubmitRequest(Formed("r", form));
  f.Submit({.prompt_tokens = 2});
  ASSERT_TRUE(f.Plan());
  ASSERT_EQ(f.last_plan().samples.size(), 2u);
  EXPECT_EQ(f.last_plan().samples[0].mask, form->mask());
  EXPECT_EQ(f.last_plan().samples[1].mask, nullptr);
}

TEST(FormTest, ACompleteFormEndsTheSequenceAndALostOneItsRequest) {
  SchedulerFixture f({});
  const auto complete = std::make_shared<FakeForm>(), lost = std::make_shared<FakeForm>();
  f.SubmitRequest(Formed("complete", complete));
  f.SubmitRequest(Formed("lost", lost));
  RunDry(f);
  complete->Become(FormState::kComplete);
  lost->Become(FormState::kFailed);
  RunDry(f);
  EXPECT_EQ(f.FinishOf("complete").reason, FinishReason::kStop);
  EXPECT_TRUE(absl::IsInvalidArgument(f.StatusOf("lost")));
  EXPECT_EQ(f.free_blocks(), 16);
}

// In every state: while it waits, while its token is under way, and when it has ended.
TEST(FormTest, ARewindTakesTheFormBackToWhatStays) {
  for (const int32_t depth : {1, 2}) {
    for (const FormState last : {FormState::kWorking, FormState::kReady, FormState::kComplete}) {
      SchedulerFixture f({.pipeline_depth = depth});
      const auto form = std::make_shared<FakeForm>();
      f.SubmitRequest(Formed("r", form));
      RunDry(f);
      for (int32_t token = 0; token < 3; ++token) {
        form->Become(FormState::kReady);
        RunDry(f);
      }
      const std::vector<TokenId> all = f.TokensOf("r");
      ASSERT_EQ(all.size(), 4u);
      form->Become(last);
      if (last != FormState::kWorking) f.Plan();
      const std::vector<TokenId> kept(all.begin(), all.begin() + 2);
      ASSERT_TRUE(f.scheduler().Rewind("r", {.keep_tokens = 2}, f.now).ok());
      EXPECT_EQ(form->text, kept);
      RunDry(f);
      EXPECT_EQ(form->text, kept) << "sampled before its mask was there";
      for (int32_t token = 0; token < 2; ++token) {
        form->Become(FormState::kReady);
        RunDry(f);
      }
      // The draws are those of their positions.
      EXPECT_EQ(form->text, all);
      EXPECT_EQ(f.breach(), "");
    }
  }
}

}  // namespace
}  // namespace behemoth::worker
