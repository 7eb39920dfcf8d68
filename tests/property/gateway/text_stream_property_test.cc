// TextStream over random texts cut into random tokens, against the whole-string oracle. A failure
// prints seed and case; --gtest_random_seed=SEED runs other texts.
#include "gateway/text/text_stream.h"

#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

#include <random>

#include "tests/property/gateway/text_oracle.h"

namespace behemoth::gateway {
namespace {

constexpr int kCases = 150'000;

using Random = std::mt19937_64;

uint32_t Below(Random& random, uint32_t bound) { return static_cast<uint32_t>(random() % bound); }

// Pieces of texts, stops and prefills: few letters, so that everything collides with everything;
// tags whole and broken, characters of every length, bytes that are none.
constexpr std::string_view kPieces[] = {
    "a",     "a",    "b",       "ab",       "aab",       " ",
    "\n",    " \n",  "<think>", "</think>", "</think>",  "<think",
    "</thi", "<",    "</",      ">",        "think",     "\t",
    "é",     "€",    "😀",      "\xE2\x82", "\xF0",      "\xAC",
    "\xFF",  "</s>", "[INST]",  "\r",       "<think>\n", "\n</think>\n\n"};

std::string Text(Random& random, uint32_t max_pieces) {
  std::string text;
  // Half of all turns begin as a model that thinks begins.
  if (Below(random, 2) == 0) text = Below(random, 2) == 0 ? "<think>" : " \n<think>\na";
  for (uint32_t i = Below(random, max_pieces + 1); i > 0; --i) {
    text += kPieces[Below(random, std::size(kPieces))];
  }
  return text;
}

struct Case {
  std::vector<std::string> tokens;  // of id 0, 1, ...; in this order they are the text
  std::vector<uint32_t> control;    // ids among them
  std::vector<std::string> stops;
  TextStreamOptions options;
};

// Cuts the text at any byte; some cuts get a control token, or an empty one.
void CutIntoTokens(Random& random, std::string_view text, Case& c) {
  while (!text.empty()) {
    const size_t bytes = 1 + Below(random, Below(random, 2) == 0 ? 2 : 12);
    c.tokens.emplace_back(text.substr(0, bytes));
    text.remove_prefix(std::min(bytes, text.size()));
    if (Below(random, 12) == 0) {
      c.control.push_back(static_cast<uint32_t>(c.tokens.size()));
      c.tokens.emplace_back(Below(random, 2) == 0 ? "</s>" : "[INST]");
    }
    if (Below(random, 30) == 0) c.tokens.emplace_back();
  }
}

Case MakeCase(Random& random) {
  Case c;
  const std::string text = Text(random, 14);
  CutIntoTokens(random, text, c);
  const std::string whole = oracle::ValidUtf8(text);
  for (uint32_t i = Below(random, 4); i > 0; --i) {
    std::string stop;
    if (Below(random, 2) == 0 && !whole.empty()) {  // what surely occurs
      stop = whole.substr(Below(random, static_cast<uint32_t>(whole.size())), 1 + Below(random, 9));
    } else {
      for (uint32_t n = 1 + Below(random, 3); n > 0; --n) {
        stop += kPieces[Below(random, std::size(kPieces))];
      }
    }
    stop = oracle::ValidUtf8(stop);  // as any stop out of JSON is
    if (std::find(c.stops.begin(), c.stops.end(), stop) == c.stops.end()) c.stops.push_back(stop);
  }
  constexpr std::string_view kPrefills[] = {"",
                                            "",
                                            "",
                                            "<think>\nOk so\n",
                                            "<think>",
                                            "<thi",
                                            "<think>\na\n</think>\n\n",
                                            "a ",
                                            " ",
                                            "<think>a</th"};
  c.options.prefill = kPrefills[Below(random, std::size(kPrefills))];
  c.options.detokenizer.skip_special_tokens = Below(random, 2) == 0;
  c.options.detokenizer.strip_leading_space = Below(random, 2) == 0;
  c.options.stops_in_answer_only = Below(random, 2) == 0;
  c.options.include_stop_in_output = Below(random, 2) == 0;
  c.options.separate_reasoning = Below(random, 2) == 0;
  if (!c.stops.empty()) c.options.stops = std::make_shared<StopSet>(c.stops);
  return c;
}

struct Outcome {
  std::string content, reasoning;
  std::optional<std::string> stop;
  bool operator==(const Outcome&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Outcome& outcome) {
  return out << "content=" << testing::PrintToString(outcome.content)
             << " reasoning=" << testing::PrintToString(outcome.reasoning)
             << " stop=" << testing::PrintToString(outcome.stop);
}

std::string WholeText(const Case& c) {
  std::string bytes;
  bool first = true;
  for (uint32_t id = 0; id < c.tokens.size(); ++id) {
    const bool control = std::find(c.control.begin(), c.control.end(), id) != c.control.end();
    if (control && c.options.detokenizer.skip_special_tokens) continue;
    std::string token = c.tokens[id];
    if (first && !token.empty()) {
      first = false;
      if (c.options.detokenizer.strip_leading_space && token[0] == ' ') token.erase(0, 1);
    }
    bytes += token;
  }
  return oracle::ValidUtf8(bytes);
}

Outcome Expected(const Case& c) {
  const TextStreamOptions& options = c.options;
  Outcome outcome;
  const auto cut = [&](std::string text) {
    const auto found = oracle::FindStop(text, c.stops);
    if (!found) return text;
    outcome.stop = c.stops[found->index];
    text.erase(found->position);
    return options.include_stop_in_output ? text + *outcome.stop : text;
  };
  std::string text = WholeText(c);
  if (!options.stops_in_answer_only) text = cut(std::move(text));
  auto split = oracle::SplitThinking(options.prefill, text, !options.separate_reasoning);
  if (options.stops_in_answer_only) split.answer = cut(std::move(split.answer));
  outcome.reasoning = options.separate_reasoning ? split.reasoning : "";
  outcome.content = options.separate_reasoning ? split.answer : split.reasoning + split.answer;
  return outcome;
}

// `random` null: all ids in one call.
Outcome Streamed(const Case& c, Random* random) {
  TextStream stream(std::make_shared<TokenTable>(c.tokens, c.control), c.options);
  std::vector<uint32_t> ids(c.tokens.size());
  for (uint32_t id = 0; id < ids.size(); ++id) ids[id] = id;
  Outcome outcome;
  bool stopped = false;
  for (size_t at = 0; at < ids.size() && !stopped;) {
    const size_t count = random == nullptr ? ids.size() : 1 + Below(*random, 3);
    const auto call = std::span(ids).subspan(at, std::min(count, ids.size() - at));
    TextPieces pieces;
    stopped = stream.Push(call, pieces);
    EXPECT_TRUE(oracle::IsValidUtf8(pieces.content)) << testing::PrintToString(pieces.content);
    EXPECT_TRUE(oracle::IsValidUtf8(pieces.reasoning)) << testing::PrintToString(pieces.reasoning);
    outcome.content += pieces.content;
    outcome.reasoning += pieces.reasoning;
    at += call.size();
  }
  if (!stopped) {
    TextPieces pieces;
    stopped = stream.Finish(pieces);
    outcome.content += pieces.content;
    outcome.reasoning += pieces.reasoning;
  }
  if (const auto stop = stream.matched_stop()) outcome.stop = std::string(*stop);
  EXPECT_EQ(stopped, outcome.stop.has_value());
  return outcome;
}

std::string Described(const Case& c) {
  return "tokens=" + testing::PrintToString(c.tokens) +
         " stops=" + testing::PrintToString(c.stops) +
         " prefill=" + testing::PrintToString(c.options.prefill) +
         " scope_answer=" + std::to_string(c.options.stops_in_answer_only) +
         " include_stop=" + std::to_string(c.options.include_stop_in_output) +
         " separate=" + std::to_string(c.options.separate_reasoning);
}

TEST(TextStreamPropertyTest, StreamingIsWholeStringSearchWhateverTheCuts) {
  const auto seed = static_cast<uint64_t>(GTEST_FLAG_GET(random_seed));
  RecordProperty("seed", std::to_string(seed));
  int stopped = 0, reasoned = 0, answered_after_thought = 0;
  for (int i = 0; i < kCases; ++i) {
    Random random(seed * 1'000'003 + i);
    const Case c = MakeCase(random);
    const Outcome expected = Expected(c);
    ASSERT_EQ(Streamed(c, nullptr), expected) << "seed " << seed << " case " << i << Described(c);
    ASSERT_EQ(Streamed(c, &random), expected) << "seed " << seed << " case " << i << Described(c);
    ASSERT_FALSE(HasFailure()) << "seed " << seed << " case " << i << " " << Described(c);
    stopped += expected.stop.has_value();
    reasoned += !expected.reasoning.empty();
    answered_after_thought += !expected.reasoning.empty() && !expected.content.empty();
  }
  // The generator still reaches what the test is about.
  EXPECT_GT(stopped, kCases / 10);
  EXPECT_GT(reasoned, kCases / 10);
  EXPECT_GT(answered_after_thought, kCases / 50);
}

// Each of the 2^(n-1) ways to cut these turns into tokens at its bytes gives the same texts.
TEST(TextStreamPropertyTest, EveryWayToCutAShortTurnGivesTheSameTexts) {
  struct Turn {
    std::string text, prefill;
    std::vector<std::string> stops;
  };
  const Turn turns[] = {
      {"<think>a</think>\nb", "", {}},
      {"</think> b\xE2\x82\xAC"
       "c",
       "<think>\nOk\n",
       {"c"}},
      {"aaab aab</s>x", "", {"aab", "ab </s>"}},
      {" \n<think>\n</th", "", {}},
      {"a\n</think>a\n\nb", "<think>", {"\n\n", "</think>a\n\nbc"}},
      {"\xF0\x9F\x98\x80\xF0\x9F\xE2\x82\xAC"
       "ab",
       "",
       {"\xE2\x82\xAC"
        "abc",
        "b"}},
  };
  for (const Turn& turn : turns) {
    const auto bytes = static_cast<uint32_t>(turn.text.size());
    ASSERT_LE(bytes, 19u);
    for (const int flags : {0, 1, 2, 3, 4, 5, 6, 7}) {
      Case c;
      c.stops = turn.stops;
      c.options.prefill = turn.prefill;
      c.options.stops_in_answer_only = flags & 1;
      c.options.include_stop_in_output = flags & 2;
      c.options.separate_reasoning = flags & 4;
      if (!c.stops.empty()) c.options.stops = std::make_shared<StopSet>(c.stops);
      // All cuts of up to 15 bytes; of longer turns every fifth.
      for (uint32_t cuts = 0; cuts < 1u << (bytes - 1); cuts += bytes > 15 ? 5 : 1) {
        c.tokens.assign(1, "");
        for (uint32_t i = 0; i < bytes; ++i) {
          c.tokens.back().push_back(turn.text[i]);
          if (i + 1 < bytes && (cuts >> i & 1)) c.tokens.emplace_back();
        }
        ASSERT_EQ(Streamed(c, nullptr), Expected(c)) << "cuts " << cuts << " " << Described(c);
      }
    }
  }
}

TEST(TextStreamPropertyTest, AnIdOutsideTheVocabularyIsOneReplacementAndEndsACharacter) {
  const std::vector<std::string> tokens = {"\xE2\x82", "\xAC", "a"};
  TextStream stream(std::make_shared<TokenTable>(tokens, std::span<const uint32_t>()), {});
  TextPieces pieces;
  const uint32_t ids[] = {0, 7, 1, 0, 1, 4294967295, 2};
  EXPECT_FALSE(stream.Push(ids, pieces));
  EXPECT_FALSE(stream.Finish(pieces));
  const std::string fffd = "\xEF\xBF\xBD";
  EXPECT_EQ(pieces.content, absl::StrCat(fffd, fffd, fffd, fffd, "€", fffd, "a"));
}

}  // namespace
}  // namespace behemoth::gateway
