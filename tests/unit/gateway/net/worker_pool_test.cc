#include "gateway/upstream/worker_pool.h"

#include <gtest/gtest.h>

#include <map>

#include "gateway/api/api_error.h"
#include "gateway/upstream/quarantine.h"
#include "tests/unit/gateway/net/fake_loop.h"

namespace behemoth::gateway {
namespace {

struct FakeWorker {
  struct Call final : GenerateCall {
    Call(FakeWorker* w, GenerateObserver* o) : worker(w), observer(o) {
      worker->calls.push_back(this);
    }
    ~Call() override { std::erase(worker->calls, this); }
    void Cancel() override { cancelled = true; }
    void Pause(bool) override {}
    void EndByControl() override { ++worker->controls; }
    void ForceIds(uint32_t, std::vector<uint32_t>) override {}
    void Rewind(RewindSpec) override {}
    FakeWorker* const worker;
    GenerateObserver* const observer;
    bool cancelled = false;
  };
  struct Client final : WorkerClient {
    explicit Client(FakeWorker* w) : worker(w) {}
    std::unique_ptr<GenerateCall> Generate(GenerateSpec, GenerateObserver* observer,
                                           Loop&) override {
      ++worker->started;
      return std::make_unique<Call>(worker, observer);
    }
    std::shared_ptr<void> Watch(WorkerWatch* watch, Loop&) override {
      worker->watch = watch;
      ++worker->watches;
      return std::shared_ptr<void>(nullptr, [w = worker](void*) { w->watch = nullptr; });
    }
    FakeWorker* const worker;
  };

  void Report(uint32_t running = 0, WorkerState state = WorkerState::kReady) {
    watch->OnReport({.state = state, .served_names = {"tiny", "alias"}, .context_tokens = 100});
    watch->OnLoad({.state = state, .running_sequences = running});
  }

  WorkerWatch* watch = nullptr;
  std::vector<Call*> calls;
  int started = 0, watches = 0, controls = 0;
};

struct Observer final : GenerateObserver {
  void OnEvent(WorkerEvent) override { ++events; }
  void OnDone(absl::Status s) override { status = std::move(s); }
  int events = 0;
  std::optional<absl::Status> status;
};

class WorkerPoolTest : public ::testing::Test {
 protected:
  WorkerPoolTest()
      : pool_(
            {},
            [this](const std::string& address) -> absl::StatusOr<std::unique_ptr<WorkerClient>> {
              return std::make_unique<FakeWorker::Client>(&workers_[address]);
            },
            loop_) {
    pool_.SetAddresses({"a:1", "b:1"});
    loop_.Run();
    a_.Report();
    b_.Report();
  }
  std::unique_ptr<GenerateCall> Ask(Observer& observer, uint64_t content_hash = 0) {
    GenerateSpec spec;
    spec.content_hash = content_hash;
    return pool_.Generate("tiny", std::move(spec), &observer, loop_);
  }

  FakeLoop loop_;
  std::map<std::string, FakeWorker> workers_;
  FakeWorker &a_ = workers_["a:1"], &b_ = workers_["b:1"];
  LeastLoadPool pool_;
};

TEST_F(WorkerPoolTest, TheLeastLoadedWorkerTakesTheRequest) {
  a_.Report(5);
  Observer one, two;
  const auto first = Ask(one);
  EXPECT_EQ(b_.started, 1);
  a_.Report(0);
  const auto second = Ask(two);  // what we sent to b counts although b has not said so yet
  EXPECT_EQ(a_.started, 1);
}

TEST_F(WorkerPoolTest, SilentLostAndDrainingWorkersTakeNothing) {
  b_.Report(0, WorkerState::kDraining);
  EXPECT_EQ(pool_.View().usable, 1);
  loop_.Advance(absl::Seconds(4));
  EXPECT_EQ(pool_.View().usable, 0);
  EXPECT_EQ(pool_.View().models.size(), 2u);  // known names stay, so that they are 503 and not 404
  a_.Report();
  EXPECT_EQ(pool_.View().usable, 1);
  a_.watch->OnLost(absl::UnavailableError("gone"));
  EXPECT_EQ(pool_.View().usable, 0);
  loop_.Advance(absl::Seconds(1));
  EXPECT_EQ(a_.watches, 2);  // asked again by itself
  a_.Report();
  EXPECT_EQ(pool_.View().usable, 1);
}

TEST_F(WorkerPoolTest, AWorkerOfAnotherTokenizerTakesNothing) {
  const auto report = [](FakeWorker& worker, std::string fingerprint) {
    worker.watch->OnReport({.state = WorkerState::kReady,
                            .served_names = {"tiny"},
                            .tokenizer_fingerprint = std::move(fingerprint)});
  };
  report(a_, "ours");
  report(b_, "other");
  EXPECT_EQ(pool_.View().usable, 2);  // nobody can tell before the tokenizer service was heard
  pool_.SetTokenizerFingerprint("ours");
  EXPECT_EQ(pool_.View().usable, 1);
  EXPECT_TRUE(pool_.View().other_tokenizer);
  Observer one, two;
  const auto first = Ask(one), second = Ask(two);
  EXPECT_EQ(a_.started, 2);
  EXPECT_EQ(b_.started, 0);
  report(b_, "");  // its operator has turned the check off, or it has no such file
  EXPECT_EQ(pool_.View().usable, 2);
  EXPECT_FALSE(pool_.View().other_tokenizer);
}

TEST_F(WorkerPoolTest, AFailureBeforeTheFirstTokenGoesToAnotherWorker) {
  Observer observer;
  const auto call = Ask(observer);
  auto& first = a_.started ? a_ : b_;
  auto& second = a_.started ? b_ : a_;
  first.calls[0]->observer->OnEvent(ProgressEvent{});
  first.calls[0]->observer->OnDone(absl::UnavailableError("10.0.0.1: gone"));
  loop_.Advance(absl::ZeroDuration());
  EXPECT_EQ(second.started, 1);
  EXPECT_FALSE(observer.status);
  second.calls[0]->observer->OnDone(absl::UnavailableError("10.0.0.2: gone"));
  loop_.Advance(absl::ZeroDuration());
  ASSERT_TRUE(observer.status);  // each worker once, then the truth, without addresses
  EXPECT_TRUE(absl::IsUnavailable(*observer.status));
  EXPECT_EQ(observer.status->message().find("10.0"), std::string::npos);
  EXPECT_EQ(first.started, 1);
}

TEST_F(WorkerPoolTest, AfterTheFirstTokenNothingIsRetried) {
  Observer observer;
  const auto call = Ask(observer);
  auto& first = a_.started ? a_ : b_;
  first.calls[0]->observer->OnEvent(TokensEvent{.ids = {1}});
  first.calls[0]->observer->OnDone(absl::CancelledError("the worker's own end"));
  loop_.Advance(absl::ZeroDuration());
  ASSERT_TRUE(observer.status);
  EXPECT_TRUE(absl::IsUnavailable(*observer.status));
  EXPECT_EQ(a_.started + b_.started, 1);
}

TEST_F(WorkerPoolTest, AFullQueueIsTriedElsewhereAndABadRequestIsNot) {
  Observer full, bad;
  const auto one = Ask(full);
  auto& first = a_.started ? a_ : b_;
  first.calls[0]->observer->OnDone(absl::ResourceExhaustedError("queue"));
  loop_.Advance(absl::ZeroDuration());
  EXPECT_EQ(a_.started + b_.started, 2);
  const auto two = Ask(bad);
  first.calls.back()->observer->OnDone(absl::InvalidArgumentError("top_p"));
  loop_.Advance(absl::ZeroDuration());
  EXPECT_TRUE(bad.status && absl::IsInvalidArgument(*bad.status));
  EXPECT_EQ(a_.started + b_.started, 3);
}

TEST_F(WorkerPoolTest, AFailedWorkerIsLeftAloneForAWhile) {
  Observer observer;
  const auto call = Ask(observer);
  auto& first = a_.started ? a_ : b_;
  first.calls[0]->observer->OnDone(absl::UnavailableError("gone"));
  EXPECT_EQ(pool_.View().usable, 1);
  loop_.Advance(absl::Seconds(2));
  EXPECT_EQ(pool_.View().usable, 2);
}

TEST_F(WorkerPoolTest, ACancelledCallIsSilentAndReturnsItsPlace) {
  Observer observer;
  auto call = Ask(observer);
  auto& first = a_.started ? a_ : b_;
  call->Cancel();
  EXPECT_TRUE(first.calls[0]->cancelled);
  call.reset();
  EXPECT_FALSE(observer.status);
  pool_.SetAddresses({});
  loop_.Run();
  EXPECT_EQ(a_.watch, nullptr);  // with nothing in flight the member goes
}

TEST_F(WorkerPoolTest, ALeavingWorkerEndsItsRequestsFirst) {
  Observer observer;
  const auto call = Ask(observer);
  auto& first = a_.started ? a_ : b_;
  pool_.SetAddresses({});
  loop_.Run();
  EXPECT_NE(first.watch, nullptr);
  EXPECT_EQ(pool_.View().workers, 0);
  first.calls[0]->observer->OnDone(absl::OkStatus());
  loop_.Run();
  EXPECT_EQ(first.watch, nullptr);
}

TEST_F(WorkerPoolTest, NoWorkerIsUnavailableAndNeverFromInsideTheCall) {
  pool_.SetAddresses({});
  loop_.Run();
  Observer observer;
  const auto call = Ask(observer);
  EXPECT_FALSE(observer.status);
  loop_.Advance(absl::ZeroDuration());
  EXPECT_TRUE(observer.status && absl::IsUnavailable(*observer.status));
}

// A request that ends the workers that run it.
class QuarantineTest : public WorkerPoolTest {
 protected:
  static constexpr uint64_t kPoison = 7, kOther = 8;
  static constexpr char kRefused[] = "request_quarantined";

  QuarantineTest() {
    pool_.SetAddresses({"a:1", "b:1", "c:1"});
    loop_.Run();
    c_.Report();
  }
  int started() const { return a_.started + b_.started + c_.started; }
  void ReportAll() {
    for (FakeWorker* one : {&a_, &b_, &c_}) one->Report();
  }
  FakeWorker& Busy() { return !a_.calls.empty() ? a_ : !b_.calls.empty() ? b_ : c_; }
  // The worker that runs a call dies with all of them and comes back.
  void LoseAWorker() {
    FakeWorker& worker = Busy();
    ASSERT_FALSE(worker.calls.empty());
    const std::vector<FakeWorker::Call*> calls = worker.calls;
    for (FakeWorker::Call* call : calls) {
      call->observer->OnEvent(ProgressEvent{});
      call->observer->OnDone(absl::UnavailableError("gone"));
    }
    worker.watch->OnLost(absl::UnavailableError("gone"));
    loop_.Advance(absl::Seconds(3));
    ReportAll();
  }
  // Asks, loses the worker after a token, and returns what the client hears.
  absl::Status LoseOneStream(uint64_t content_hash) {
    Observer observer;
    const auto call = Ask(observer, content_hash);
    if (!Busy().calls.empty()) Busy().calls[0]->observer->OnEvent(TokensEvent{.ids = {1}});
    LoseAWorker();
    return observer.status.value_or(absl::UnknownError("still runs"));
  }
  std::string CodeName(uint64_t content_hash) {
    Observer observer;
    const auto call = Ask(observer, content_hash);
    loop_.Advance(absl::ZeroDuration());
    return observer.status ? ToApiError(*observer.status).code_name : "";
  }

  FakeWorker& c_ = workers_["c:1"];
};

TEST_F(QuarantineTest, ARequestThatTwoWorkersWereLostWithReachesNoThird) {
  Observer observer;
  const auto call = Ask(observer, kPoison);
  LoseAWorker();
  EXPECT_EQ(started(), 2);
  EXPECT_FALSE(observer.status);
  LoseAWorker();
  EXPECT_EQ(started(), 2);
  ASSERT_TRUE(observer.status);
  EXPECT_TRUE(absl::IsInternal(*observer.status));
  EXPECT_EQ(ToApiError(*observer.status).code_name, kRefused);
}

TEST_F(QuarantineTest, TheClientsOwnRetryIsTheSameRequestForTenMinutes) {
  for (int i = 0; i < Quarantine::kLosses; ++i) {
    EXPECT_TRUE(absl::IsUnavailable(LoseOneStream(kPoison)));
  }
  EXPECT_EQ(CodeName(kPoison), kRefused);
  EXPECT_EQ(started(), 2);
  EXPECT_EQ(CodeName(kOther), "");
  loop_.Advance(Quarantine::kMemory);
  ReportAll();
  EXPECT_EQ(CodeName(kPoison), "");
}

TEST_F(QuarantineTest, EqualRequestsThatAreLostTogetherCountOnce) {
  b_.Report(9);
  c_.Report(9);
  Observer one, two;
  const auto first = Ask(one, kPoison), second = Ask(two, kPoison);
  ASSERT_EQ(a_.calls.size(), 2u);
  LoseAWorker();
  EXPECT_EQ(started(), 4);  // both go on elsewhere
}

TEST_F(QuarantineTest, ARunThatEndsOtherwiseClearsTheName) {
  for (const bool cancelled : {false, true}) {
    EXPECT_TRUE(absl::IsUnavailable(LoseOneStream(kPoison)));
    Observer observer;
    const auto call = Ask(observer, kPoison);
    FakeWorker& worker = Busy();
    worker.calls[0]->observer->OnEvent(TokensEvent{.ids = {1}});
    if (cancelled) {
      call->Cancel();
    } else {
      worker.calls[0]->observer->OnDone(absl::OkStatus());
    }
  }
  EXPECT_TRUE(absl::IsUnavailable(LoseOneStream(kPoison)));
  EXPECT_EQ(CodeName(kPoison), "");
}

TEST_F(QuarantineTest, AWorkerThatDrainsOrRefusesIsNoLoss) {
  for (int i = 0; i < Quarantine::kLosses; ++i) {
    Observer drained;
    const auto call = Ask(drained, kPoison);
    FakeWorker& worker = Busy();
    worker.calls[0]->observer->OnEvent(TokensEvent{.ids = {1}});
    worker.watch->OnLoad({.state = WorkerState::kDraining});
    worker.calls[0]->observer->OnDone(absl::UnavailableError("the worker has stopped"));
    EXPECT_TRUE(drained.status);
    loop_.Advance(absl::Seconds(2));
    ReportAll();
  }
  Observer refused;
  const auto call = Ask(refused, kPoison);
  for (int tried = 1; tried <= 3; ++tried) {
    EXPECT_EQ(started(), Quarantine::kLosses + tried);
    Busy().calls[0]->observer->OnDone(absl::UnavailableError("draining"));
    loop_.Advance(absl::ZeroDuration());
  }
  EXPECT_TRUE(refused.status && absl::IsUnavailable(*refused.status));
}

TEST_F(QuarantineTest, ItsMemoryIsBounded) {
  Quarantine quarantine;
  const absl::Time now = absl::UnixEpoch();
  for (uint64_t content = 1; content <= Quarantine::kMaxSuspects + 1; ++content) {
    for (const uint64_t life : {1, 2}) quarantine.OnLoss(content, life, now);
  }
  EXPECT_TRUE(quarantine.Holds(Quarantine::kMaxSuspects, now));
  EXPECT_FALSE(quarantine.Holds(Quarantine::kMaxSuspects + 1, now));
  const absl::Time later = now + Quarantine::kMemory;  // the old ones make room
  for (const uint64_t life : {1, 2}) quarantine.OnLoss(Quarantine::kMaxSuspects + 1, life, later);
  EXPECT_TRUE(quarantine.Holds(Quarantine::kMaxSuspects + 1, later));
}

}  // namespace
}  // namespace behemoth::gateway
