// Tool calls from the worker's ids to the client's bytes: what is asked of the worker for each
// choice, what becomes of what it says. Template, tokenizer, worker and socket are fakes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/registry.h>

#include <nlohmann/json.hpp>

#include "gateway/session/generation.h"
#include "gateway/session/generation_plan.h"
#include "tests/unit/gateway/net/fake_loop.h"

namespace behemoth::gateway {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint32_t kCalls = 1;
// Ids as pieces of one list of calls, and of other texts.
const std::vector<std::string> kBytes = {
    "<s>", "[TOOL_CALLS]", " [{\"name\": \"f\", ", "\"arguments\": {\"a\"", ": 1}}]", "</think>",
    "x",   " no"};

struct Sink final : GenerationSink {
  void OnProgress(const ProgressEvent&) override {}
  void OnDelta(uint32_t, GenerationDelta delta) override {
    content += delta.text.content;
    reasoning += delta.text.reasoning;
    for (const ToolCallDelta& call : delta.text.calls) {
      if (!call.name.empty()) names.push_back(call.name);
      arguments += call.arguments;
    }
  }
  void OnEnd(uint32_t, const SequenceEnd& e) override { end = e; }
  void OnPromptLogprobs(std::vector<std::optional<TokenLogprobs>>) override {}
  void OnGenerationDone(absl::Status s) override { status = s; }
  std::string content, reasoning, arguments;
  std::vector<std::string> names;
  std::optional<SequenceEnd> end;
  std::optional<absl::Status> status;
};

struct Pool final : WorkerPool {
  struct Call final : GenerateCall {
    explicit Call(Pool* p) : pool(p) {}
    void Cancel() override {}
    void Pause(bool) override {}
    void EndByControl() override {}
    void ForceIds(uint32_t, std::vector<uint32_t>) override {}
    void Rewind(RewindSpec rewind) override { pool->rewinds.push_back(std::move(rewind)); }
    Pool* const pool;
  };
  PoolView View() const override { return {}; }
  std::unique_ptr<GenerateCall> Generate(const std::string&, GenerateSpec, GenerateObserver*,
                                         Loop&) override {
    return std::make_unique<Call>(this);
  }
  std::vector<RewindSpec> rewinds;
};

class ToolCallsTest : public ::testing::Test {
 protected:
  ToolCallsTest() {
    const std::array<uint32_t, 2> control = {0, kCalls};
    vocabulary_.table = std::make_shared<TokenTable>(kBytes, control);
    vocabulary_.control_tokens = {{"<s>", 0}, {"[TOOL_CALLS]", kCalls}};
    options_.tool_calls = ToolCalls::kAllowed;
    prompt_.ids = {0};
  }

  GenerationPlan Plan() {
    auto plan = PlanGeneration({.options = &options_,
                                .reasoning = ReasoningFormat::kSeparate,
                                .prompt = &prompt_,
                                .model = &model_,
                                .vocabulary = &vocabulary_,
                                .phrases = &phrases_});
    EXPECT_TRUE(plan.ok()) << plan.status();
    return *std::move(plan);
  }
  void Structure() { options_.structure = StructureOptions{.text = "{}", .field = "tools"}; }
  // What comes of these ids and the model's end.
  Sink Run(const std::vector<uint32_t>& ids,
           FinishEvent::Reason reason = FinishEvent::Reason::kStop) {
    Sink sink;
    Generation generation(Plan(), 0, &sink);
    generation.Start(pool_, loop_);
    for (const uint32_t id : ids) {
      const size_t rewinds = pool_.rewinds.size();
      generation.OnEvent(TokensEvent{.ids = {id}});
      if (pool_.rewinds.size() == rewinds) continue;
      generation.OnEvent(TokensEvent{.ids = {7}});  // on its way already: void
      generation.OnEvent(RewoundEvent{.keep_tokens = pool_.rewinds.back().keep_tokens});
      for (const uint32_t forced : pool_.rewinds.back().force_ids) {
        generation.OnEvent(TokensEvent{.ids = {forced}});
      }
    }
    generation.OnEvent(FinishEvent{.reason = reason});
    EXPECT_TRUE(sink.status && sink.status->ok());
    return sink;
  }

  GenerationOptions options_;
  PreparedPrompt prompt_;
  ServedModel model_{.name = "m", .context_tokens = 100};
  Vocabulary vocabulary_;
  PhraseIds phrases_;
  Pool pool_;
  FakeLoop loop_;
};

TEST_F(ToolCallsTest, TheChoiceIsWhatTheWorkerIsAskedFor) {
  EXPECT_EQ(Plan().text.tool_calls_id, kCalls);
  EXPECT_FALSE(Plan().spec.structure);
  Structure();
  EXPECT_EQ(Plan().spec.structure->begins_after_id, kCalls);
  EXPECT_TRUE(Plan().spec.structure->dumps_spaces);
  prompt_.prefill = "<think>\n";  // the token may come behind it, or not at all
  EXPECT_EQ(Plan().spec.structure->begins_after, "");
  prompt_.prefill = "";

  options_.tool_calls = ToolCalls::kForced;
  prompt_.begins_with_calls = true;
  EXPECT_FALSE(Plan().spec.structure->begins_after_id);
  EXPECT_EQ(Plan().spec.structure->begins_after, "");
  EXPECT_FALSE(Plan().spec.rewindable);

  options_.structure.reset();
  prompt_.begins_with_calls = false;
  options_.tool_calls = ToolCalls::kBanned;
  EXPECT_THAT(Plan().spec.banned_ids, ElementsAre(kCalls));
  EXPECT_FALSE(Plan().text.tool_calls_id);
  options_.tool_calls = ToolCalls::kNoTools;
  EXPECT_THAT(Plan().spec.banned_ids, IsEmpty());
  EXPECT_FALSE(Plan().text.tool_calls_id);
}

TEST_F(ToolCallsTest, AStructureOfTheAnswersOwnIsWrittenFreely) {
  Structure();
  options_.tool_calls = ToolCalls::kNoTools;
  EXPECT_FALSE(Plan().spec.structure->dumps_spaces);
  EXPECT_FALSE(Plan().spec.structure->begins_after_id);
}

TEST_F(ToolCallsTest, AWholeCallIsTheFinishReason) {
  const Sink sink = Run({6, kCalls, 2, 3, 4});
  EXPECT_EQ(sink.content, "x");
  EXPECT_THAT(sink.names, ElementsAre("f"));
  EXPECT_EQ(sink.arguments, "{\"a\": 1}");
  EXPECT_EQ(sink.end->reason, FinishReason::kToolCalls);
  EXPECT_FALSE(sink.end->warning);
}

TEST_F(ToolCallsTest, ABrokenOrUnfinishedCallIsNamedAndNeverAFinishReason) {
  const std::pair<std::vector<uint32_t>, std::string> cases[] = {
      {{kCalls, 7}, " no"},
      {{kCalls, 2, 3}, ""},  // all of it is given
      {{kCalls, 2}, " [{\"name\": \"f\", "},
      {{kCalls}, ""}};
  for (const auto& [ids, content] : cases) {
    const Sink sink = Run(ids);
    EXPECT_EQ(sink.end->reason, FinishReason::kStop);
    ASSERT_TRUE(sink.end->warning);
    EXPECT_EQ(sink.end->warning->field, "tool_calls");
    EXPECT_EQ(sink.content, content);
  }
}

TEST_F(ToolCallsTest, ACallThatIsCutOffByItsLengthSaysSo) {
  const Sink sink = Run({kCalls, 2, 3}, FinishEvent::Reason::kLength);
  EXPECT_THAT(sink.names, ElementsAre("f"));
  EXPECT_EQ(sink.arguments, "{\"a\"");
  EXPECT_EQ(sink.end->reason, FinishReason::kLength);
  EXPECT_FALSE(sink.end->warning);
}

TEST_F(ToolCallsTest, BehindAThoughtTheCallIsMadeToCome) {
  Structure();
  options_.tool_calls = ToolCalls::kForced;
  prompt_.prefill = "<think>\n";
  const GenerationPlan plan = Plan();
  EXPECT_TRUE(plan.spec.rewindable);
  EXPECT_EQ(plan.spec.structure->begins_after, "</think>");
  const Sink sink = Run({6, 5, 2, 3, 4});
  ASSERT_EQ(pool_.rewinds.size(), 1u);
  EXPECT_EQ(pool_.rewinds[0].keep_tokens, 2u);
  EXPECT_THAT(pool_.rewinds[0].force_ids, ElementsAre(kCalls));
  EXPECT_EQ(sink.reasoning, "x");
  EXPECT_EQ(sink.content, "");
  EXPECT_THAT(sink.names, ElementsAre("f"));
  EXPECT_EQ(sink.end->reason, FinishReason::kToolCalls);
}

TEST_F(ToolCallsTest, ABudgetThatEndsTheThoughtComesBeforeTheCall) {
  Structure();
  options_.tool_calls = ToolCalls::kForced;
  prompt_.prefill = "<think>\n";
  phrases_.end_thinking = {5};
  Sink sink;
  auto plan = Plan();
  plan.thinking_budget = 1;
  Generation generation(std::move(plan), 0, &sink);
  generation.Start(pool_, loop_);
  generation.OnEvent(TokensEvent{.ids = {6, 6}});
  ASSERT_EQ(pool_.rewinds.size(), 1u);
  EXPECT_THAT(pool_.rewinds[0].force_ids, ElementsAre(5));
  generation.OnEvent(RewoundEvent{.keep_tokens = 1});
  generation.OnEvent(TokensEvent{.ids = {5, 6}});
  ASSERT_EQ(pool_.rewinds.size(), 2u);
  EXPECT_EQ(pool_.rewinds[1].keep_tokens, 2u);
  EXPECT_THAT(pool_.rewinds[1].force_ids, ElementsAre(kCalls));
}

TEST_F(ToolCallsTest, IdsAreMistralsAndDiffer) {
  const std::string one = NewToolCallId();
  EXPECT_THAT(one, testing::MatchesRegex("[a-zA-Z0-9]{9}"));
  EXPECT_NE(one, NewToolCallId());
}

}  // namespace
}  // namespace behemoth::gateway
