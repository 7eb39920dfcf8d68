// Sequences whose output has a form: they wait for their masks, nobody waits for them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <vector>

#include "tests/unit/worker/schedule/scheduler_fixture.h"

namespace behemoth::worker {
namespace {

// Its masks come when the test says so.
class FakeForm : public Form {
 public:
  // The first `free` masks come by themselves.
  explicit FakeForm(int free = 0) : free_(free) {}
  void Advance(TokenId token) override {
    text.push_back(token);
    state_ = free_-- > 0 ? FormState::kReady : FormState::kWorking;
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
  int free_;
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

// Nothing could be sampled: the client's doing where its own fields exclude what the form allows.
TEST(FormTest, AFormOfWhichTheRequestLeavesNothingIsTheClientsFault) {
  const auto status = [](const std::function<void(SamplingParams&)>& exclude) {
    SchedulerFixture f({});
    auto request = Formed("r", std::make_shared<FakeForm>(kPoisonedOutput));
    request.prompt = {5, kPoisonId, 6};
    exclude(request.sampling);
    f.SubmitRequest(std::move(request));
    RunDry(f);
    return f.StatusOf("r");
  };
  EXPECT_TRUE(absl::IsInternal(status([](SamplingParams&) {})));
  EXPECT_TRUE(
      absl::IsInternal(status([](SamplingParams& sampling) { sampling.allowed_ids = {3}; })));
  const absl::Status excluded = status([](SamplingParams& sampling) {
    sampling.allowed_ids = {3, 4, 5};
    sampling.banned_ids = {4};
    sampling.logit_bias = {{.id = 3, .bias = -100}, {.id = 5, .bias = -100}};
  });
  EXPECT_TRUE(absl::IsInvalidArgument(excluded)) << excluded;
  EXPECT_THAT(std::string(excluded.message()), testing::StartsWith("structure: "));
}

// At depth 2 a step goes out before its mask can be known, and gets it while it runs.
TEST(FormTest, AMaskMayComeWhileItsStepRuns) {
  SchedulerFixture f({.pipeline_depth = 2});
  const auto form = std::make_shared<FakeForm>();
  f.SubmitRequest(Formed("r", form));
  f.Submit({.prompt_tokens = 2, .max_new_tokens = 6});
  ASSERT_TRUE(f.Plan());
  EXPECT_EQ(f.last_plan().late_masks, nullptr);
  ASSERT_TRUE(f.Plan());
  const auto gate = f.last_plan().late_masks;
  ASSERT_NE(gate, nullptr);
  EXPECT_TRUE(f.last_plan().samples[0].late_mask);
  EXPECT_FALSE(f.last_plan().samples[1].late_mask);
  f.Commit();
  EXPECT_EQ(f.scheduler().masks_due(), f.now + Scheduler::kMaskPatience);
  EXPECT_FALSE(gate->is_open());
  form->Become(FormState::kReady);
  EXPECT_LE(f.scheduler().masks_due(), f.now);
  f.scheduler().OpenMasks();
  ASSERT_TRUE(gate->is_open());
  EXPECT_THAT(gate->Await(), testing::ElementsAre(form->mask()));
  f.Commit();
  EXPECT_EQ(f.TokensOf("r").size(), 2u);
  EXPECT_EQ(form->text, f.TokensOf("r"));
  EXPECT_EQ(f.breach(), "");
}

// Its sample is void and it starts again from its last known token; the others go on meanwhile.
TEST(FormTest, WhoseMaskComesTooLateMissesAStepAndLosesNothing) {
  SchedulerFixture f({.pipeline_depth = 2});
  const auto form = std::make_shared<FakeForm>();
  f.SubmitRequest(Formed("r", form));
  const auto plain = f.Submit({.prompt_tokens = 2, .max_new_tokens = 6});
  ASSERT_TRUE(f.Plan() && f.Plan());
  const auto gate = f.last_plan().late_masks;
  f.Commit();
  f.now += Scheduler::kMaskPatience;
  EXPECT_LE(f.scheduler().masks_due(), f.now);
  f.scheduler().OpenMasks();
  EXPECT_THAT(gate->Await(), testing::ElementsAre(nullptr));
  f.Commit();
  EXPECT_EQ(f.TokensOf("r").size(), 1u);
  EXPECT_LE(f.scheduler().masks_due(), f.now) << "nobody waits for it any more";
  for (int32_t token = 1; token < 8; ++token) {
    form->Become(FormState::kReady);
    RunDry(f);
  }
  EXPECT_EQ(f.TokensOf("r"), f.TokensWhenAlone("r"));
  EXPECT_EQ(f.TokensOf(plain), f.TokensWhenAlone(plain));
  EXPECT_EQ(f.free_blocks(), 16);
  EXPECT_EQ(f.breach(), "");
}

// While its step waits for the mask: nothing is left waiting, and nothing of the sample is kept.
TEST(FormTest, ASequenceMayEndOrBeRewoundBeforeItsLateMask) {
  for (const bool rewinds : {false, true}) {
    SchedulerFixture f({.pipeline_depth = 2});
    const auto form = std::make_shared<FakeForm>();
    f.SubmitRequest(Formed("r", form));
    ASSERT_TRUE(f.Plan() && f.Plan());
    const auto gate = f.last_plan().late_masks;
    f.Commit();
    if (rewinds) {
      ASSERT_TRUE(f.scheduler().Rewind("r", {.keep_tokens = 1}, f.now).ok());
    } else {
      ASSERT_TRUE(f.scheduler().Cancel("r", f.now).ok());
    }
    f.scheduler().OpenMasks();
    ASSERT_TRUE(gate->is_open());
    EXPECT_THAT(gate->Await(), testing::ElementsAre(nullptr));
    f.Commit();
    EXPECT_EQ(f.TokensOf("r").size(), 1u);
    EXPECT_EQ(f.breach(), "");
  }
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
