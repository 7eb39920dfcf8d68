// The engine on a GPU against the engine on the CPU: token for token at the same seeds, with every
// sampler alone and in mixtures, with masks, in a pool where sequences preempt each other.
//
// The logits of two devices differ by roundings, so a text may part where two tokens are near a
// tie. What is shown instead of "nearly always equal" is exact, in two halves:
// 1. Over the GPU's own logits the CPU's sampler draws every token of the engine on the GPU. They
//    are computed again in other batches, one step at a time, and read back: a row's bits are its
//    own (cuda_backend_test.cc).
// 2. Where the engine on the CPU says another token, the two rows of logits behind the same tokens
//    differ by no more than the computed bound (tests/golden/worker/golden_checkpoints.h).
// So a token differs only where logits within the bound make the CPU's own sampler decide
// otherwise.
#include <absl/strings/str_cat.h>
#include <absl/synchronization/notification.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include "tests/golden/worker/golden_checkpoints.h"
#include "tests/kernels/sampler_requests.h"
#include "worker/engine/engine.h"
#include "worker/sampling/sampler.h"

namespace behemoth::worker {
namespace {

constexpr char kTiny[] = BEHEMOTH_SOURCE_DIR "/tests/models/tiny";
constexpr int32_t kTokens = 96;     // of each request
constexpr int32_t kSequences = 32;  // at a time
constexpr int32_t kContext = 256;
// Of 64 tokens. Who is let in grows by one block without preempting anybody; these want two.
constexpr size_t kBounded = 24;  // partings whose logits are looked at: a bound takes seconds
constexpr int32_t kBlocks = 40, kBlocksEach = 3;

using Tokens = std::vector<TokenId>;

class Listener : public TokenSink {
 public:
  bool Push(TokenEvent event) override {
    if (const auto* tokens = std::get_if<TokensEvent>(&event)) {
      said_.insert(said_.end(), tokens->ids.begin(), tokens->ids.end());
    } else if (const auto* finish = std::get_if<FinishEvent>(&event)) {
      if (finish->matched_stop_id) said_.push_back(*finish->matched_stop_id);
      preemptions_ = finish->preemptions;
    }
    return true;
  }
  void Close(const absl::Status& status) override {
    EXPECT_TRUE(status.ok()) << status;
    closed_.Notify();
  }
  // Both wait for the end.
  Tokens Said() const { return closed_.WaitForNotification(), said_; }
  int32_t Preemptions() const { return closed_.WaitForNotification(), preemptions_; }

 private:
  absl::Notification closed_;
  Tokens said_;
  int32_t preemptions_ = 0;
};

int32_t Threads(int32_t most) {
  return std::clamp(static_cast<int32_t>(std::thread::hardware_concurrency()), 1, most);
}

// What the engine says to each of `requests`, all at once.
std::vector<Tokens> RunEngine(const Device& device, const std::vector<SamplerRequest>& requests) {
  const LoadOptions options{.folder = kTiny,
                            .max_model_len = kContext,
                            .max_sequences = kSequences,
                            .max_step_tokens = 256,
                            .threads = Threads(8)};
  auto model = OpenModel(options, device);
  EXPECT_TRUE(model.ok()) << model.status();
  if (!model.ok()) return {};
  auto runner = (*model)->Load(kBlocks, nullptr);
  EXPECT_TRUE(runner.ok()) << runner.status();
  if (!runner.ok()) return {};
  ScheduleObserver observer;
  Engine engine(ConfigFor((*runner)->limits()), MailboxLimits{}, runner->get(), &observer, {});
  std::vector<std::shared_ptr<Listener>> listeners;
  for (const SamplerRequest& asked : requests) {
    GenerationRequest request;
    request.request_id = absl::StrCat("r", listeners.size());
    request.prompt = asked.prompt;
    request.sampling = asked.params;
    request.max_tokens = kTokens;
    if (asked.is_masked) {
      request.forms = {std::make_shared<HashForm>(asked.params.seed, asked.vocabulary)};
    }
    request.sink = listeners.emplace_back(std::make_shared<Listener>());
    EXPECT_TRUE(engine.Submit(std::move(request)).ok());
  }
  engine.Start();
  std::vector<Tokens> said;
  int32_t preemptions = 0;
  for (const auto& listener : listeners) {
    said.push_back(listener->Said());
    preemptions += listener->Preemptions();
  }
  engine.Stop();
  EXPECT_TRUE(preemptions > 0 || requests.size() <= kSequences) << "none was preempted";
  return said;
}

// A place in a text: behind the first `length` tokens that the request was answered.
struct Place {
  size_t request = 0, length = 0;
  bool operator<(const Place& other) const {
    return std::pair(request, length) < std::pair(other.request, other.length);
  }
};
using Logits = std::map<Place, std::vector<float>>;

// Goes through the texts once more on `device`, kSequences at a time and step by step, with the
// CPU's sampler over the logits that the device makes.
class Replay {
 public:
  Replay(const Device& device, const std::vector<SamplerRequest>& requests)
      : requests_(requests),
        model_({.folder = kTiny,
                .device = &device,
                .context_tokens = kContext,
                .max_sequences = kSequences,
                .blocks = kBlocksEach * kSequences}) {}

  // Fails the test at a token that the sampler does not draw. Keeps the logits of `wanted`.
  void Check(const std::vector<Tokens>& said, const std::set<Place>& wanted) {
    ASSERT_TRUE(model_.ok());
    for (size_t first = 0; first < said.size(); first += kSequences) {
      const size_t end = std::min(said.size(), first + kSequences);
      samplers_.clear();
      for (size_t i = first; i < end; ++i) {
        samplers_.emplace_back(model_.vocabulary_size())
            .Bind({.sampling = std::make_shared<SamplingParams>(requests_[i].params),
                   .prompt = requests_[i].prompt});
        const auto logits = model_.Step({PieceOf(i, 0, said[i])});
        ASSERT_EQ(logits.size(), 1u);
        CheckToken({i, 0}, logits[0], said[i], wanted);
        if (testing::Test::HasFatalFailure()) return;
      }
      for (size_t length = 1; length < static_cast<size_t>(kTokens); ++length) {
        std::vector<Piece> pieces;
        std::vector<size_t> rows;
        for (size_t i = first; i < end; ++i) {
          if (said[i].size() <= length) continue;
          pieces.push_back(PieceOf(i, length, said[i]));
          rows.push_back(i);
        }
        if (rows.empty()) break;
        const auto logits = model_.Step(pieces);
        ASSERT_EQ(logits.size(), rows.size());
        for (size_t row = 0; row < rows.size(); ++row) {
          CheckToken({rows[row], length}, logits[row], said[rows[row]], wanted);
          if (testing::Test::HasFatalFailure()) return;
        }
      }
    }
  }

  const Logits& logits() const { return logits_; }
  int tokens() const { return tokens_; }
  // Every kind of request has said something that it would not have said without its sampler.
  void ExpectAllActed() const {
    for (const SamplerRequest& asked : requests_) {
      EXPECT_TRUE(acted_.contains(asked.kind)) << asked.kind << " has changed no token";
    }
  }

 private:
  Piece PieceOf(size_t i, size_t length, const Tokens& said) const {
    const auto slot = static_cast<int32_t>(i % kSequences);
    const Tokens& prompt = requests_[i].prompt;
    Piece piece{.slot = slot,
                .tokens = prompt,
                .blocks = ModelHarness::Table(kBlocksEach * slot, kBlocksEach)};
    if (length == 0) return piece;
    piece.tokens = {said[length - 1]};
    piece.position = static_cast<int32_t>(prompt.size() + length) - 1;
    piece.output_count = 1;
    return piece;
  }

  void CheckToken(const Place& place, const std::vector<float>& logits, const Tokens& said,
                  const std::set<Place>& wanted) {
    const SamplerRequest& asked = requests_[place.request];
    if (wanted.contains(place)) logits_[place] = logits;
    TokenMask mask;
    if (asked.is_masked) {
      mask = HashForm::MaskOf(asked.params.seed, asked.vocabulary,
                              {said.begin(), said.begin() + static_cast<int64_t>(place.length)});
    }
    const auto position = static_cast<int32_t>(asked.prompt.size() + place.length);
    std::vector<float> row = logits;
    const SampleResult drawn = samplers_[place.request % kSequences].Sample(row, position, mask);
    ASSERT_TRUE(drawn.finite);
    ASSERT_EQ(drawn.token, said[place.length])
        << asked.kind << ", request " << place.request << ", token " << place.length;
    ++tokens_;
    SamplerState plain(asked.vocabulary);
    plain.Bind({.sampling = std::make_shared<SamplingParams>(asked.plain)});
    row = logits;
    if (plain.Sample(row, position).token != drawn.token) acted_.insert(asked.kind);
  }

  const std::vector<SamplerRequest>& requests_;
  ModelHarness model_;
  std::vector<SamplerState> samplers_;  // of the requests that are under way
  Logits logits_;
  std::set<std::string> acted_;
  int tokens_ = 0;
};

// Where the texts of each request part, if they do.
std::set<Place> Partings(const std::vector<Tokens>& a, const std::vector<Tokens>& b) {
  std::set<Place> partings;
  for (size_t i = 0; i < a.size(); ++i) {
    const auto [at, other] = std::mismatch(a[i].begin(), a[i].end(), b[i].begin(), b[i].end());
    if (at == a[i].end() && other == b[i].end()) continue;
    partings.insert({i, static_cast<size_t>(at - a[i].begin())});
  }
  return partings;
}

// At most `most` of them, from first to last.
std::set<Place> Some(const std::set<Place>& places, size_t most) {
  std::set<Place> some;
  const size_t stride = std::max<size_t>(1, (places.size() + most - 1) / most);
  size_t index = 0;
  for (const Place& place : places) {
    if (index++ % stride == 0) some.insert(place);
  }
  return some;
}

// Each place's logits are those of the CPU within what bf16 does. Returns the largest share of its
// bound that one comes to.
float ExpectWithinTheBound(const std::vector<SamplerRequest>& requests,
                           const std::vector<Tokens>& said, const Logits& logits) {
  std::mutex mutex;
  auto next = logits.begin();
  float most = 0;
  const auto work = [&] {
    ModelHarness exact({.folder = kTiny, .threads = 1});
    NoisyModels noisy(kTiny, Arithmetic::kBf16);
    while (true) {
      std::unique_lock lock(mutex);
      if (next == logits.end()) return;
      const auto& [place, row] = *next++;
      lock.unlock();
      Tokens tokens = requests[place.request].prompt;
      const Tokens& text = said[place.request];
      tokens.insert(tokens.end(), text.begin(), text.begin() + static_cast<int64_t>(place.length));
      const auto step = [&](ModelHarness& model) { return model.LogitsAfter(tokens, kContext); };
      const std::vector<float> expected = step(exact);
      const float bound = noisy.Bound(expected, step);
      float difference = 0;
      for (size_t id = 0; id < row.size(); ++id) {
        difference = std::max(difference, std::fabs(row[id] - expected[id]));
      }
      EXPECT_LE(difference, bound) << requests[place.request].kind << ", request " << place.request
                                   << ", token " << place.length;
      lock.lock();
      most = std::max(most, difference / bound);
    }
  };
  std::vector<std::thread> threads;
  for (int32_t i = Threads(12); i > 0; --i) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
  return most;
}

void ExpectTheSamplersTokens(const Device& device, int32_t seeds, int32_t mixtures) {
  const std::vector<SamplerRequest> requests = SamplerRequests(seeds, mixtures);
  const std::vector<Tokens> said = RunEngine(device, requests);
  const std::vector<Tokens> on_cpu = RunEngine(*OpenCpu(), requests);
  ASSERT_EQ(said.size(), requests.size());
  ASSERT_EQ(on_cpu.size(), requests.size());
  const std::set<Place> partings = Partings(said, on_cpu);
  const std::set<Place> bounded = Some(partings, kBounded);
  Replay replay(device, requests);
  replay.Check(said, bounded);
  if (testing::Test::HasFatalFailure()) return;
  replay.ExpectAllActed();
  std::cout << requests.size() << " requests, " << replay.tokens()
            << " tokens: each is what the CPU's sampler draws from the device's logits; "
            << partings.size() << " texts part from the CPU's" << std::endl;
  ASSERT_EQ(replay.logits().size(), bounded.size());
  const float most = ExpectWithinTheBound(requests, said, replay.logits());
  std::cout << "at " << bounded.size() << " of these places logits differ by at most " << most
            << " of the bound\n";
}

TEST(CudaEngineTest, TokensAreTheCpusAtTheSameSeeds) {
  const auto gpu = OpenCuda(0);
  if (!gpu.ok()) GTEST_SKIP() << "no CUDA device on this machine";
  ExpectTheSamplersTokens(**gpu, /*seeds=*/5, /*mixtures=*/110);
}

// The CPU against itself: no text parts, and what the test is made of works without a GPU.
TEST(CudaEngineTest, TheCpusTokensAreItsOwn) {
  const auto cpu = OpenCpu();
  const std::vector<SamplerRequest> requests = SamplerRequests(/*seeds=*/1, /*mixtures=*/12);
  const std::vector<Tokens> said = RunEngine(*cpu, requests);
  ASSERT_EQ(said.size(), requests.size());
  Replay replay(*cpu, requests);
  replay.Check(said, {{0, 0}, {1, 20}});
  if (testing::Test::HasFatalFailure()) return;
  replay.ExpectAllActed();
  ASSERT_EQ(replay.logits().size(), 2u);
  ExpectWithinTheBound(requests, said, replay.logits());
}

}  // namespace
}  // namespace behemoth::worker
