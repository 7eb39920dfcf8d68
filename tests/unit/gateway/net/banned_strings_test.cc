// Banned strings against a worker whose model wants to say them: in every spelling that its
// vocabulary has, in any case, cut inside characters, in events of any size, with its answer to a
// rewind as late as can be.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "gateway/session/generation.h"
#include "tests/unit/gateway/net/fake_loop.h"

namespace behemoth::gateway {
namespace {

using Ids = std::vector<uint32_t>;

// Every byte of the characters used, and words that hold, begin or end the banned ones.
const std::vector<std::string>& Vocabulary() {
  static const std::vector<std::string> tokens = [] {
    std::vector<std::string> all = {"<s>"};
    std::set<char> bytes;
    for (const char c : std::string("abcABC éÉσςΣ.")) bytes.insert(c);
    for (const char c : bytes) all.emplace_back(1, c);
    for (const char* word : {"ab", "bc", "aB", "Ab", "é", "É", "σ", "Σ", "ς", " a", "c ", "abc",
                             "aé", "éb", "bσ", ". ", "ca", "cab", "ÉB"}) {
      all.emplace_back(word);
    }
    return all;
  }();
  return tokens;
}

// The folding of these characters, by hand (CaseFolding.txt).
std::string Fold(std::string text) {
  const std::pair<std::string, std::string> folds[] = {{"A", "a"}, {"B", "b"}, {"C", "c"},
                                                       {"É", "é"}, {"Σ", "σ"}, {"ς", "σ"}};
  for (const auto& [from, to] : folds) {
    for (size_t at; (at = text.find(from)) != std::string::npos;) text.replace(at, from.size(), to);
  }
  return text;
}

uint64_t Mix(uint64_t a, uint64_t b) {
  uint64_t x = (a ^ (b + 0x9e3779b97f4a7c15)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 29)) * 0x94d049bb133111eb;
  return x ^ (x >> 32);
}

// The next token is a function of what stands before it and of what is banned there.
struct WillfulModel {
  uint64_t seed;
  std::vector<std::string> wanted;  // what it likes to say, folded

  uint32_t Next(const Ids& before, const std::set<uint32_t>& banned) const {
    uint64_t hash = seed;
    std::string text;
    for (const uint32_t id : before) {
      hash = Mix(hash, id);
      text += Vocabulary()[id];
    }
    text = Fold(text);
    for (uint64_t attempt = 0; attempt < 400; ++attempt) {
      const uint64_t draw = Mix(hash, attempt);
      uint32_t id = 1 + static_cast<uint32_t>(draw % (Vocabulary().size() - 1));
      if (draw % 4 != 0) id = Spell(text, draw >> 8).value_or(id);
      if (!banned.contains(id)) return id;
    }
    for (uint32_t id = 1;; ++id) {
      if (!banned.contains(id)) return id;
    }
  }

  // Some token that brings the text, folded, closer to a wanted one.
  std::optional<uint32_t> Spell(const std::string& text, uint64_t draw) const {
    static const std::vector<std::string> folded = [] {
      std::vector<std::string> all;
      for (const std::string& token : Vocabulary()) all.push_back(Fold(token));
      return all;
    }();
    const std::string& phrase = wanted[draw % wanted.size()];
    for (size_t have = phrase.size(); have > 0; --have) {
      if (!text.ends_with(phrase.substr(0, have - 1))) continue;
      const std::string rest = phrase.substr(have - 1);
      Ids fitting;
      for (uint32_t id = 1; id < folded.size(); ++id) {
        if (rest.starts_with(folded[id]) || folded[id].starts_with(rest)) fitting.push_back(id);
      }
      if (!fitting.empty()) return fitting[(draw >> 8) % fitting.size()];
    }
    return std::nullopt;
  }
};

// One sequence at a worker, as worker.proto has it.
class FakeWorker final : public WorkerPool {
 public:
  struct Call final : GenerateCall {
    explicit Call(FakeWorker* w) : worker(w) {}
    void Cancel() override { worker->cancelled = true; }
    void Pause(bool) override {}
    void EndByControl() override {}
    void ForceIds(uint32_t, Ids) override {}
    void Rewind(RewindSpec rewind) override {
      ASSERT_FALSE(worker->asked) << "one rewind at a time";
      ASSERT_LE(rewind.keep_tokens, worker->tokens.size());
      worker->asked = std::move(rewind);
      worker->patience = worker->delay();
    }
    FakeWorker* const worker;
  };
  FakeWorker(WillfulModel m, uint32_t most, uint32_t seed)
      : model(std::move(m)), max(most), dice(seed) {}

  PoolView View() const override { return {}; }
  std::unique_ptr<GenerateCall> Generate(const std::string&, GenerateSpec spec, GenerateObserver* o,
                                         Loop&) override {
    EXPECT_TRUE(spec.rewindable);
    observer = o;
    return std::make_unique<Call>(this);
  }

  void Run(uint32_t largest_event) {
    for (int turn = 0; turn < 100'000 && !cancelled; ++turn) {
      if (asked && patience == 0) {
        Apply(*std::exchange(asked, std::nullopt));
        continue;
      }
      if (asked) --patience;
      Ids ids;
      const uint32_t wanted = 1 + dice() % largest_event;
      while (ids.size() < wanted && tokens.size() < max && !finished) {
        tokens.push_back(model.Next(tokens, bans[tokens.size()]));
        ids.push_back(tokens.back());
      }
      if (!ids.empty()) observer->OnEvent(TokensEvent{.ids = ids});
      if (tokens.size() == max && !finished && !cancelled) {
        finished = true;
        observer->OnEvent(FinishEvent{.reason = FinishEvent::Reason::kLength});
      } else if (ids.empty() && asked) {
        patience = 0;
      }
    }
    EXPECT_TRUE(cancelled) << "no end";
  }
  uint32_t delay() { return dice() % 4; }

  void Apply(const RewindSpec& rewind) {
    ++rewinds;
    tokens.resize(rewind.keep_tokens);
    bans.erase(bans.upper_bound(rewind.keep_tokens), bans.end());
    bans[rewind.keep_tokens].insert(rewind.banned_ids.begin(), rewind.banned_ids.end());
    finished = false;
    observer->OnEvent(RewoundEvent{.keep_tokens = rewind.keep_tokens});
    if (!rewind.force_ids.empty()) {
      tokens.insert(tokens.end(), rewind.force_ids.begin(), rewind.force_ids.end());
      observer->OnEvent(TokensEvent{.ids = rewind.force_ids});
    }
  }

  WillfulModel model;
  const uint32_t max;
  std::mt19937 dice;
  GenerateObserver* observer = nullptr;
  Ids tokens;
  std::map<size_t, std::set<uint32_t>> bans;
  std::optional<RewindSpec> asked;
  uint32_t patience = 0, rewinds = 0;
  bool finished = false, cancelled = false;
};

struct Sink final : GenerationSink {
  void OnProgress(const ProgressEvent&) override {}
  void OnDelta(uint32_t, GenerationDelta delta) override {
    content += delta.text.content;
    reasoning += delta.text.reasoning;
    ids.insert(ids.end(), delta.ids.begin(), delta.ids.end());
  }
  void OnEnd(uint32_t, const SequenceEnd& e) override { end = e; }
  void OnPromptLogprobs(std::vector<std::optional<TokenLogprobs>>) override {}
  void OnGenerationDone(absl::Status s) override { status = std::move(s); }
  std::string content, reasoning;
  Ids ids;
  std::optional<SequenceEnd> end;
  std::optional<absl::Status> status;
};

std::shared_ptr<const TokenTable> Table() {
  static const auto table = std::make_shared<TokenTable>(Vocabulary(), Ids{0});
  return table;
}

GenerationPlan PlanOf(std::vector<std::string> banned, uint32_t max) {
  GenerationPlan plan;
  plan.spec.prompt_ids = {0};
  plan.spec.rewindable = true;
  plan.table = Table();
  plan.room_tokens = max;
  if (!banned.empty()) plan.banned = std::make_shared<BannedSet>(std::move(banned));
  return plan;
}

// The same by the definition: the text of the tokens, whatever came before it.
std::string TextOf(const Ids& ids) {
  Detokenizer detokenizer(Table(), {});
  std::string text;
  for (const uint32_t id : ids) detokenizer.Push(id, text);
  detokenizer.Flush(text);
  return text;
}

TEST(BannedStringsTest, AThousandModelsThatWantToSayThemNeverDoAndSayAllElse) {
  const std::vector<std::vector<std::string>> lists = {
      {"abc"}, {"ab", "ca"}, {"é b"}, {"Σσ", "aé"}, {"a", "bcb"}, {"cabc", "abca", "é"}, {". A"}};
  uint32_t rewinds = 0, gave_up = 0;
  for (uint32_t seed = 0; seed < 1000; ++seed) {
    const auto& banned = lists[seed % lists.size()];
    WillfulModel model{.seed = seed * 7919};
    for (const std::string& text : banned) model.wanted.push_back(Fold(text));
    std::string content[2];
    uint32_t completion_tokens[2];
    // One token an event and prompt rewinds, then events of any size and late ones.
    for (int way = 0; way < 2; ++way) {
      FakeWorker worker(model, 60, seed);
      FakeLoop loop;
      Sink sink;
      Generation generation(PlanOf(banned, 60), 0, &sink);
      generation.Start(worker, loop);
      worker.Run(way == 0 ? 1 : 6);
      ASSERT_TRUE(sink.status && sink.status->ok()) << seed;
      for (const std::string& text : banned) {
        ASSERT_EQ(Fold(sink.content).find(Fold(text)), std::string::npos) << sink.content;
      }
      rewinds += worker.rewinds;
      if (sink.end->warning) {
        ++gave_up;
      } else {
        // Nothing lost, nothing twice.
        ASSERT_EQ(sink.ids, worker.tokens) << seed;
        ASSERT_EQ(sink.content, TextOf(worker.tokens)) << seed;
        ASSERT_EQ(sink.end->reason, FinishReason::kLength);
      }
      ASSERT_LE(worker.rewinds, Generation::kMaxRewinds);
      ASSERT_GE(generation.usage().completion_tokens, sink.ids.size() + worker.rewinds);
      content[way] = sink.content;
      completion_tokens[way] = generation.usage().completion_tokens;
    }
    ASSERT_EQ(content[0], content[1]) << seed;
    ASSERT_EQ(completion_tokens[0], completion_tokens[1]) << seed;
  }
  EXPECT_GT(rewinds, 5000u);
  EXPECT_LT(gave_up, 20u);
}

TEST(BannedStringsTest, WhereNoOtherWayIsLeftTheAnswerEndsInFrontOfItAndSaysSo) {
  // Every token of this model begins the banned one; there are more of them than rewinds.
  std::vector<std::string> tokens = {"<s>", "x"};
  for (int i = 0; i < 200; ++i) tokens.push_back("no" + std::to_string(i));
  const auto table = std::make_shared<TokenTable>(tokens, Ids{0});
  GenerationPlan plan = PlanOf({"NO"}, 50);
  plan.table = table;
  FakeLoop loop;
  Sink sink;
  FakeWorker worker({}, 50, 1);
  Generation generation(std::move(plan), 0, &sink);
  generation.Start(worker, loop);
  worker.tokens = {1};
  generation.OnEvent(TokensEvent{.ids = {1}});
  uint32_t rewinds = 0;
  for (uint32_t id = 2; !sink.end; ++id) {
    ASSERT_LT(id, tokens.size()) << "no end";
    generation.OnEvent(TokensEvent{.ids = {id}});
    if (!worker.asked) continue;
    ++rewinds;
    EXPECT_EQ(worker.asked->keep_tokens, 1u);
    EXPECT_EQ(worker.asked->banned_ids, Ids{id});
    worker.asked.reset();
    generation.OnEvent(RewoundEvent{.keep_tokens = 1});
  }
  EXPECT_EQ(rewinds, Generation::kMaxRewindsAtToken);
  EXPECT_EQ(sink.content, "x");
  EXPECT_EQ(sink.end->reason, FinishReason::kStop);
  EXPECT_EQ(sink.end->stop.text, "NO");
  ASSERT_TRUE(sink.end->warning);
  EXPECT_EQ(sink.end->warning->field, "banned_strings");
  EXPECT_EQ(generation.usage().completion_tokens, 1 + rewinds + 1);
}

TEST(BannedStringsTest, AThinkingBudgetIsExactWhateverIsOnItsWay) {
  std::vector<std::string> tokens = {"<s>", "<think>", "t", "\n</think>\n\n", "a"};
  const auto table = std::make_shared<TokenTable>(tokens, Ids{0});
  for (uint32_t event = 1; event < 9; ++event) {
    GenerationPlan plan = PlanOf({}, 20);
    plan.table = table;
    plan.text.separate_reasoning = true;
    plan.thinking_budget = 4;
    plan.end_thinking_ids = {3};
    FakeLoop loop;
    Sink sink;
    FakeWorker worker({}, 20, event);
    Generation generation(std::move(plan), 0, &sink);
    generation.Start(worker, loop);
    Ids thinking(event, 2);
    thinking.front() = 1;
    for (worker.tokens = {}; !worker.asked;) {
      worker.tokens.insert(worker.tokens.end(), thinking.begin(), thinking.end());
      generation.OnEvent(TokensEvent{.ids = thinking});
      thinking.assign(event, 2);
    }
    EXPECT_EQ(worker.asked->force_ids, Ids{3});
    // On its way already: void.
    generation.OnEvent(TokensEvent{.ids = {2, 2, 2}});
    generation.OnEvent(FinishEvent{.reason = FinishEvent::Reason::kStop});
    EXPECT_FALSE(sink.end);
    worker.Apply(*std::exchange(worker.asked, std::nullopt));
    generation.OnEvent(TokensEvent{.ids = {4, 4}});
    generation.OnEvent(FinishEvent{.reason = FinishEvent::Reason::kStop});
    ASSERT_TRUE(sink.end);
    EXPECT_EQ(sink.content, "aa");
    const auto thought = static_cast<uint32_t>(sink.reasoning.size());
    EXPECT_EQ(generation.usage().reasoning_tokens, 4u + 1u) << "four, and what closes the block";
    EXPECT_EQ(thought, 4u) << sink.reasoning;
  }
}

}  // namespace
}  // namespace behemoth::gateway
