// Bad words and DRY breakers as ids, against the definitions spelt out token by token.
#include "gateway/session/phrases.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "gateway/api/api_error.h"

namespace behemoth::gateway {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// A tokenizer of single characters: id = the byte; a space stands in front of every text's
// beginning, as sentencepiece's does.
IdLists EncodeBytes(const std::vector<EncodeInput>& inputs) {
  IdLists lists;
  for (const EncodeInput& input : inputs) {
    lists.push_back({' '});
    for (const char c : input.segments[0].text) lists.back().push_back(static_cast<uint8_t>(c));
  }
  return lists;
}

PhraseIds Resolve(const SamplingOptions& sampling, bool budget = false) {
  auto ids = PhraseIdsOf(sampling, budget, EncodeBytes(PhraseInputs(sampling, budget)));
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.ok() ? *std::move(ids) : PhraseIds{};
}

TEST(PhrasesTest, NothingIsEncodedWhereNothingIsAskedFor) {
  EXPECT_THAT(PhraseInputs({}, false), IsEmpty());
  // Breakers of one byte have no tail.
  EXPECT_THAT(PhraseInputs({.dry = DryOptions{.multiplier = 1, .breakers = {"\n", ":"}}}, false),
              IsEmpty());
}

TEST(PhrasesTest, ABadWordIsBannedWithAndWithoutASpaceInFrontAndNothingElse) {
  const PhraseIds ids = Resolve({.bad_words = {"ab", " c"}});
  EXPECT_THAT(ids.bad_words, ElementsAre(ElementsAre('a', 'b'), ElementsAre(' ', 'a', 'b'),
                                         ElementsAre('c'), ElementsAre(' ', 'c')));
}

TEST(PhrasesTest, TheEndOfThinkingIsEncodedBesideThem) {
  EXPECT_EQ(Resolve({}, true).end_thinking.size(), 1 + std::string("\n</think>\n\n").size());
  const PhraseIds both = Resolve({.bad_words = {"a"}}, true);
  EXPECT_FALSE(both.end_thinking.empty());
  EXPECT_EQ(both.bad_words.size(), 2u);
}

TEST(PhrasesTest, ABadWordOfMoreThan64TokensIsRefusedByName) {
  const SamplingOptions sampling{.bad_words = {std::string(65, 'x')}};
  const auto ids = PhraseIdsOf(sampling, false, EncodeBytes(PhraseInputs(sampling, false)));
  EXPECT_EQ(ToApiError(ids.status()).param, "bad_words");
  EXPECT_EQ(ToApiError(ids.status()).http, 400);
}

TEST(PhrasesTest, ATokenizerThatLeavesSomethingOutIsOurFault) {
  const SamplingOptions sampling{.bad_words = {"a"}};
  EXPECT_EQ(PhraseIdsOf(sampling, false, {{1}}).status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(PhraseIdsOf(sampling, false, {{1}, {2, 3}, {2, 3}}).status().code(),
            absl::StatusCode::kInternal);
}

// Every token of a random vocabulary, held against the definition: it holds the breaker, or ends
// with a part of it that begins the breaker.
TEST(PhrasesTest, BreakersAreFoundInEveryTokenThatHoldsOrBeginsThem) {
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    std::vector<std::string> tokens = {"<s>", "a:b"};
    for (int i = 0; i < 60; ++i) {
      std::string& token = tokens.emplace_back();
      for (size_t n = random() % 5; n > 0; --n) token += "ab:\n"[random() % 4];
    }
    const std::vector<uint32_t> control = {0, 1};
    const TokenTable table(tokens, control);
    std::string breaker;
    for (size_t n = 1 + random() % 3; n > 0; --n) breaker += "ab:\n"[random() % 4];
    const DryOptions dry{.multiplier = 0.5, .base = 2, .last_n = 9, .breakers = {breaker}};
    const DrySpec spec = DryOf(dry, Resolve({.dry = dry}), table);
    EXPECT_EQ(spec.base, 2.0f);
    EXPECT_EQ(spec.last_n, 9u);

    std::set<uint32_t> whole;
    std::set<std::pair<uint32_t, std::string>> spanning;
    for (uint32_t id = 2; id < tokens.size(); ++id) {
      if (tokens[id].find(breaker) != std::string::npos) {
        whole.insert(id);
        continue;
      }
      for (size_t cut = 1; cut < breaker.size(); ++cut) {
        if (tokens[id].ends_with(breaker.substr(0, cut))) spanning.emplace(id, breaker.substr(cut));
      }
    }
    EXPECT_EQ(std::set(spec.breaker_ids.begin(), spec.breaker_ids.end()), whole);
    EXPECT_EQ(spec.breaker_ids.size(), whole.size());
    std::set<std::pair<uint32_t, std::string>> found;
    for (const SpanningBreaker& entry : spec.spanning_breakers) {
      for (const uint32_t head : entry.heads) {
        found.emplace(head, std::string(entry.tail.begin(), entry.tail.end()));
      }
    }
    EXPECT_EQ(found, spanning) << breaker;
  }
}

TEST(PhrasesTest, ABreakerIsNeverCutInsideACharacter) {
  for (const EncodeInput& input :
       PhraseInputs({.dry = DryOptions{.multiplier = 1, .breakers = {"…—"}}}, false)) {
    EXPECT_TRUE(input.segments[0].text == "\n" || input.segments[0].text == "\n—");
  }
}

}  // namespace
}  // namespace behemoth::gateway
