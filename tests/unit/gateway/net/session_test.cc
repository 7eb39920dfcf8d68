// One chat request through every state, each step made by the test: template, tokenizer, worker and
// socket are fakes that answer when told to.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <array>

#include "gateway/session/generation_session.h"
#include "tests/unit/gateway/net/fake_loop.h"

namespace behemoth::gateway {
namespace {

using ::testing::ContainsRegex;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

struct FakeTemplate final : ChatTemplate {
  void Render(ChatPrompt, Done d) override { done.push_back(std::move(d)); }
  std::vector<Done> done;
};

struct FakeTokenizer final : TokenizerClient {
  void Encode(std::vector<EncodeInput>, absl::Time, Loop&, EncodeDone d) override {
    done.push_back(std::move(d));
  }
  bool available() const override { return up; }
  std::vector<EncodeDone> done;
  bool up = true;
};

struct FakePool final : WorkerPool {
  struct Call final : GenerateCall {
    Call(FakePool* p, GenerateObserver* o) : pool(p), observer(o) { pool->call = this; }
    ~Call() override {
      if (!cancelled) ++pool->released;
      pool->call = nullptr;
    }
    void Cancel() override {
      if (!std::exchange(cancelled, true)) ++pool->released;
    }
    void Pause(bool p) override { paused = p; }
    void EndByControl() override { ++pool->ends; }
    void ForceIds(uint32_t, std::vector<uint32_t> ids) override { pool->forced = std::move(ids); }
    void Rewind(RewindSpec rewind) override { pool->forced = std::move(rewind.force_ids); }
    FakePool* const pool;
    GenerateObserver* const observer;
    bool cancelled = false, paused = false;
  };
  PoolView View() const override {
    return {.workers = 1,
            .usable = 1,
            .models = {{.name = "m", .root = "m", .context_tokens = 50, .defaults = defaults}}};
  }
  std::unique_ptr<GenerateCall> Generate(const std::string&, GenerateSpec s, GenerateObserver* o,
                                         Loop&) override {
    ++started;
    spec = std::move(s);
    return std::make_unique<Call>(this, o);
  }
  Call* call = nullptr;
  GenerateSpec spec;
  GenerationDefaults defaults;
  std::vector<uint32_t> forced;
  int started = 0, released = 0, ends = 0;
};

struct FakeResponder final : Responder {
  void Send(Response r) override {
    EXPECT_FALSE(over);
    over = true;
    whole = std::move(r);
  }
  void BeginStream(Response) override { streaming = true; }
  void Write(std::string_view bytes) override {
    EXPECT_FALSE(over);
    text += bytes;
  }
  void End(bool) override {
    EXPECT_FALSE(over);
    over = true;
  }
  size_t queued_bytes() const override { return queued; }
  Response whole;
  std::string text;
  size_t queued = 0;
  bool streaming = false, over = false;
};

const std::string kStream =
    R"({"model":"m","stream":true,"max_tokens":9,"messages":[{"role":"user","content":"x"}]})";
const std::string kWhole = R"({"max_tokens":9,"messages":[{"role":"user","content":"x"}]})";

class SessionTest : public ::testing::Test {
 protected:
  SessionTest()
      : registry_(std::make_shared<prometheus::Registry>()), probe_(*registry_), keys_({}, "") {
    const std::array<std::string, 4> bytes = {"<s>", "a", "b", "c"};
    const std::array<uint32_t, 1> control = {0};
    auto vocabulary = std::make_shared<Vocabulary>();
    vocabulary->table = std::make_shared<TokenTable>(bytes, control);
    auto text = std::make_shared<ModelText>();
    text->vocabulary = vocabulary;
    text->chat_template = template_;
    text_.Set(std::move(text));
    services_ = {.tokenizer = &tokenizer_,
                 .workers = &pool_,
                 .text = &text_,
                 .presets = &presets_,
                 .admission = &admission_,
                 .keys = &keys_,
                 .registry = &requests_,
                 .probe = &probe_};
  }

  void Begin(const std::string& body) {
    session_ = std::make_shared<GenerationSession>(
        GenerationSession::Setup{.services = &services_,
                                 .loop = &loop_,
                                 .kind = ChunkWriter::Kind::kChat,
                                 .client_request_id = "mine",
                                 .ticket = *admission_.Enter("", loop_.Now())});
    session_->Start(body, responder_);
    loop_.Run();
  }
  void Rendered() {
    PromptText prompt{.segments = {std::string("x")}, .text = "x"};
    std::move(template_->done.back())(std::move(prompt));
    loop_.Run();
  }
  void Encoded() {
    tokenizer_.done.back()(IdLists{{1, 2}});
    loop_.Run();
  }
  void Running(const std::string& body) {
    Begin(body);
    Rendered();
    Encoded();
    ASSERT_EQ(pool_.started, 1);
  }
  void Event(WorkerEvent event) {
    pool_.call->observer->OnEvent(std::move(event));
    loop_.Run();
  }
  void Gone() {  // as the connection does it
    session_->OnGone();
    session_.reset();
    loop_.Run();
  }
  std::string Metrics() { return prometheus::TextSerializer().Serialize(registry_->Collect()); }
  void AtRest() {
    session_.reset();
    loop_.Run();
    EXPECT_EQ(admission_.in_flight(), 0);
    EXPECT_EQ(pool_.call, nullptr);
    EXPECT_EQ(pool_.released, pool_.started);
    EXPECT_FALSE(requests_.Act("", "mine", RequestRegistry::Action::kCancel));
    EXPECT_THAT(Metrics(), HasSubstr("behemoth_requests_in_flight 0\n"));
  }

  FakeLoop loop_;
  std::shared_ptr<prometheus::Registry> registry_;
  Probe probe_;
  ApiKeys keys_;
  Admission admission_{{}};
  ThinkingPresets presets_;
  RequestRegistry requests_;
  ModelTextCell text_;
  FakeTokenizer tokenizer_;
  FakePool pool_;
  Services services_;
  std::shared_ptr<FakeTemplate> template_ = std::make_shared<FakeTemplate>();
  std::shared_ptr<FakeResponder> responder_ = std::make_shared<FakeResponder>();
  std::shared_ptr<GenerationSession> session_;
};

TEST_F(SessionTest, AStreamFromRoleToDone) {
  Running(kStream);
  Event(TokensEvent{.ids = {1}});
  EXPECT_THAT(responder_->text, HasSubstr(R"("role":"assistant")"));
  EXPECT_THAT(responder_->text, HasSubstr(R"("content":"a")"));
  Event(TokensEvent{.ids = {2, 3}});
  EXPECT_THAT(responder_->text, HasSubstr(R"("content":"bc")"));
  Event(FinishEvent{.reason = FinishEvent::Reason::kStop});
  EXPECT_THAT(responder_->text, EndsWith("data: [DONE]\n\n"));
  EXPECT_TRUE(responder_->over);
  EXPECT_THAT(Metrics(), HasSubstr("behemoth_tokenizer_encode_seconds_count 1\n"));
  AtRest();
}

TEST_F(SessionTest, TheModelsOwnDefaultsHoldWhereARequestSaysNothing) {
  pool_.defaults = {.temperature = 0.6f, .top_k = 40};
  Running(R"({"max_tokens":9,"top_k":5,"messages":[{"role":"user","content":"x"}]})");
  EXPECT_EQ(pool_.spec.temperature, 0.6f);
  EXPECT_EQ(pool_.spec.top_k, 5);
  EXPECT_EQ(pool_.spec.top_p, std::nullopt);
  Gone();
}

// A client may leave in any state; each time ticket, worker call and registry are given back once.
TEST_F(SessionTest, AClientThatLeavesReleasesEverythingOnceInEveryState) {
  const std::vector<std::string> stages = {"body", "tokenizing", "tokenizing", "waiting",
                                           "decoding"};
  for (size_t state = 0; state < stages.size(); ++state) {
    pool_.started = pool_.released = 0;
    responder_ = std::make_shared<FakeResponder>();
    if (state == 0) {
      session_ = std::make_shared<GenerationSession>(
          GenerationSession::Setup{.services = &services_,
                                   .loop = &loop_,
                                   .kind = ChunkWriter::Kind::kChat,
                                   .ticket = *admission_.Enter("", loop_.Now())});
    } else {
      Begin(kStream);
    }
    if (state >= 2) Rendered();
    if (state >= 3) Encoded();
    if (state >= 4) Event(TokensEvent{.ids = {1}});
    const std::string before = Metrics();
    Gone();
    EXPECT_FALSE(responder_->over) << state;  // nobody is there to be answered
    EXPECT_THAT(Metrics(), HasSubstr("behemoth_cancelled_total{stage=\"" + stages[state] + "\"} "));
    if (state == 1) Rendered();  // what comes late finds nobody
    if (state == 2) Encoded();
    EXPECT_EQ(pool_.started, state >= 3 ? 1 : 0);
    AtRest();
  }
  EXPECT_THAT(Metrics(), HasSubstr("behemoth_cancelled_total{stage=\"tokenizing\"} 2\n"));
}

TEST_F(SessionTest, LeavingAfterTheEndIsNothing) {
  Running(kStream);
  Event(FinishEvent{});
  session_->OnGone();
  EXPECT_THAT(Metrics(), Not(ContainsRegex("behemoth_cancelled_total.stage=.[a-z]+.. [1-9]")));
  AtRest();
}

TEST_F(SessionTest, SilenceIsFilledWithCommentsThatTellWhy) {
  Running(kStream);
  Event(ProgressEvent{.state = ProgressEvent::State::kWaiting, .queue_position = 3});
  loop_.Advance(absl::Seconds(9));
  EXPECT_EQ(responder_->text, "");
  loop_.Advance(absl::Seconds(1));
  EXPECT_THAT(responder_->text, EndsWith(": waiting queue_position=3\n\n"));
  Event(ProgressEvent{
      .state = ProgressEvent::State::kPrefilling, .prefilled_tokens = 1, .prompt_tokens = 2});
  loop_.Advance(absl::Seconds(10));
  EXPECT_THAT(responder_->text, EndsWith(": prefilled=1/2\n\n"));
  Event(TokensEvent{.ids = {1}});
  const size_t size = responder_->text.size();
  loop_.Advance(absl::Seconds(9));
  EXPECT_EQ(responder_->text.size(), size);  // a token is not silence
  Event(FinishEvent{});
  AtRest();
}

TEST_F(SessionTest, CancelledBeforeItRanIsAFinishReasonAndNoWorkerHearsOfIt) {
  for (const std::string& body : {kStream, kWhole}) {
    responder_ = std::make_shared<FakeResponder>();
    Begin(body);
    EXPECT_TRUE(requests_.Act("", "mine", RequestRegistry::Action::kCancel));
    loop_.Run();
    Rendered();
    Encoded();
    EXPECT_TRUE(responder_->over);
    EXPECT_THAT(responder_->text + responder_->whole.body,
                HasSubstr(R"("finish_reason":"cancelled")"));
    EXPECT_EQ(pool_.started, 0);
    AtRest();
  }
}

TEST_F(SessionTest, CancelledWhileItRunsAsksTheWorker) {
  Running(kStream);
  requests_.Act("", "mine", RequestRegistry::Action::kCancel);
  loop_.Run();
  EXPECT_EQ(pool_.ends, 1);
  Event(FinishEvent{.reason = FinishEvent::Reason::kCancelled});
  EXPECT_THAT(responder_->text, HasSubstr(R"("finish_reason":"cancelled")"));
  AtRest();
}

TEST_F(SessionTest, ASlowSocketPausesTheWorkerUntilItHasDrained) {
  Running(kStream);
  responder_->queued = services_.limits.pause_bytes + 1;
  Event(TokensEvent{.ids = {1}});
  EXPECT_TRUE(pool_.call->paused);
  responder_->queued = 0;
  session_->OnDrained();
  EXPECT_FALSE(pool_.call->paused);
  Event(FinishEvent{});
  AtRest();
}

TEST_F(SessionTest, ErrorsAreStatusesBeforeTheFirstByteAndEventsAfterIt) {
  Running(kStream);
  pool_.call->observer->OnDone(absl::UnavailableError("No worker can take the request now."));
  loop_.Run();
  EXPECT_EQ(responder_->whole.status, 503);
  EXPECT_FALSE(responder_->streaming);
  AtRest();

  responder_ = std::make_shared<FakeResponder>();
  pool_.started = pool_.released = 0;
  Running(kStream);
  Event(TokensEvent{.ids = {1}});
  pool_.call->observer->OnDone(absl::OkStatus());  // without a Finish: not an end that counts
  loop_.Run();
  EXPECT_THAT(responder_->text, HasSubstr(R"(data: {"error":)"));
  EXPECT_THAT(responder_->text, Not(HasSubstr("[DONE]")));
  EXPECT_TRUE(responder_->over);
  AtRest();
}

TEST_F(SessionTest, TheContextIsHeldBeforeAWorkerIsAsked) {
  Begin(R"({"max_tokens":49,"messages":[{"role":"user","content":"x"}]})");
  Rendered();
  Encoded();  // 2 + 49 > 50
  EXPECT_EQ(responder_->whole.status, 400);
  EXPECT_THAT(responder_->whole.body, HasSubstr("context_length_exceeded"));
  EXPECT_EQ(pool_.started, 0);
  AtRest();
}

TEST_F(SessionTest, TheTokenizerAwayIsRefusedAtOnce) {
  tokenizer_.up = false;
  Begin(kStream);
  EXPECT_EQ(responder_->whole.status, 503);
  EXPECT_THAT(responder_->whole.headers, ::testing::Contains(::testing::Key("Retry-After")));
  EXPECT_TRUE(template_->done.empty());
  AtRest();
}

TEST_F(SessionTest, TimesOfTokensAreOfOneSequence) {
  Running(R"({"n":2,"max_tokens":9,"messages":[{"role":"user","content":"x"}]})");
  Event(TokensEvent{.sequence = 0, .ids = {1}});
  loop_.Advance(absl::Milliseconds(30));
  Event(TokensEvent{.sequence = 1, .ids = {1}});
  loop_.Advance(absl::Milliseconds(10));
  Event(TokensEvent{.sequence = 0, .ids = {2, 3}});  // 40 ms for two
  EXPECT_THAT(Metrics(), HasSubstr("behemoth_inter_token_latency_seconds_count 2\n"));
  EXPECT_THAT(Metrics(), HasSubstr("behemoth_inter_token_latency_seconds_sum 0.04"));
  EXPECT_THAT(Metrics(), HasSubstr("behemoth_time_to_first_token_seconds_count 1\n"));
  Event(FinishEvent{.sequence = 0});
  EXPECT_FALSE(responder_->over);
  Event(FinishEvent{.sequence = 1});
  EXPECT_TRUE(responder_->over);
  AtRest();
}

}  // namespace
}  // namespace behemoth::gateway
