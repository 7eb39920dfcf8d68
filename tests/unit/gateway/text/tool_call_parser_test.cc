// Lists of calls whole, broken and hostile, cut at every place; what is a list is told by another
// JSON parser. Mutations print their seed.
#include "gateway/text/tool_call_parser.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

namespace behemoth::gateway {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;

struct Call {
  std::string name, arguments;
  bool operator==(const Call&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Call& call) {
  return out << call.name << call.arguments;
}

struct Outcome {
  std::vector<Call> calls;
  std::string content;
  bool complete = false, malformed = false;
  bool operator==(const Outcome&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Outcome& outcome) {
  return out << testing::PrintToString(outcome.calls) << " content=" << outcome.content
             << (outcome.complete ? " complete" : "") << (outcome.malformed ? " malformed" : "");
}

Outcome Parse(const std::vector<std::string>& pieces) {
  ToolCallParser parser;
  Outcome out;
  parser.Begin(out.content);
  for (const std::string& piece : pieces) {
    std::vector<ToolCallDelta> deltas;
    parser.Push(piece, deltas, out.content);
    for (const ToolCallDelta& delta : deltas) {
      // A name once, at the call's beginning, in its order.
      EXPECT_EQ(delta.name.empty(), delta.index < out.calls.size());
      if (!delta.name.empty()) {
        EXPECT_EQ(delta.index, out.calls.size());
        out.calls.push_back({.name = delta.name});
      }
      EXPECT_EQ(delta.index + 1, out.calls.size());
      out.calls.back().arguments += delta.arguments;
    }
  }
  out.complete = parser.complete();
  out.malformed = parser.malformed();
  parser.Finish(out.content);
  return out;
}

Outcome Parse(std::string_view text) { return Parse(std::vector<std::string>{std::string(text)}); }

void ExpectTheSameInEveryCut(const std::string& text, const Outcome& expected) {
  std::vector<std::string> bytes;
  for (const char c : text) bytes.emplace_back(1, c);
  EXPECT_EQ(Parse(bytes), expected) << text;
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    EXPECT_EQ(Parse({text.substr(0, cut), text.substr(cut)}), expected) << text << " at " << cut;
  }
}

TEST(ToolCallParserTest, OneCallAndSeveral) {
  const std::string one = R"( [{"name": "f", "arguments": {"a": [1, {"b": "}]"}]}}])";
  const Outcome expected{.calls = {{"f", R"({"a": [1, {"b": "}]"}]})"}}, .complete = true};
  ExpectTheSameInEveryCut(one, expected);
  const std::string two =
      R"([{"name":"f","arguments":{},"id":"aB3dE6gH9"} , {"name":"g","arguments":{"x":"\"\u00e9é"}}]
)";
  ExpectTheSameInEveryCut(
      two, {.calls = {{"f", "{}"}, {"g", R"({"x":"\"\u00e9é"})"}}, .complete = true});
}

TEST(ToolCallParserTest, MembersInAnyOrderAndMissingArguments) {
  for (const std::string text :
       {R"([{"arguments": {"a":1}, "name": "f"}])",
        R"([{"id": [1, {"name": 2}], "name": "f", "arguments": {"a":1}}])",
        R"([{"name": "f", "x": -1.5e+3, "arguments": {"a":1}, "y": null}])"}) {
    ExpectTheSameInEveryCut(text, {.calls = {{"f", R"({"a":1})"}}, .complete = true});
  }
  ExpectTheSameInEveryCut(R"([{"name":"f"},{"id":"x","name":"g"}])",
                          {.calls = {{"f", "{}"}, {"g", "{}"}}, .complete = true});
}

TEST(ToolCallParserTest, ArgumentsComeAsTheyAreWritten) {
  ToolCallParser parser;
  std::string content;
  std::vector<ToolCallDelta> calls;
  parser.Begin(content);
  parser.Push(R"([{"name": "f", "argum)", calls, content);
  EXPECT_TRUE(calls.empty());
  parser.Push(R"(ents": {"a")", calls, content);
  EXPECT_THAT(calls, ElementsAre(ToolCallDelta{.name = "f", .arguments = R"({"a")"}));
  calls.clear();
  parser.Push(R"(: 1)", calls, content);
  EXPECT_THAT(calls, ElementsAre(ToolCallDelta{.arguments = ": 1"}));
  calls.clear();
  parser.Push(R"(}}, {"name": "g", "arguments": {}}])", calls, content);
  EXPECT_THAT(calls, ElementsAre(ToolCallDelta{.arguments = "}"},
                                 ToolCallDelta{.index = 1, .name = "g", .arguments = "{}"}));
  EXPECT_TRUE(parser.complete());
  EXPECT_EQ(content, "");
}

TEST(ToolCallParserTest, WhatIsNoListIsContentToTheByte) {
  for (const std::string text : {"Hello",
                                 " {\"name\":\"f\"}",
                                 "[]",
                                 "[ ]",
                                 "[1]",
                                 "[\"f\"]",
                                 "[[]]",
                                 "[null]",
                                 "[{}]",
                                 "]",
                                 R"([{"name":5}])",
                                 R"([{"name":""}])",
                                 R"([{"name":null}])",
                                 R"([{"name":["f"]}])",
                                 R"([{"name":"f","name":"f"}])",
                                 R"([{"name":"\u0066"}])",
                                 R"([{"name":"f","arguments":"{}"}])",
                                 R"([{"name":"f","arguments":[]}])",
                                 R"([{"name":"f","arguments":null}])",
                                 R"([{"name":"f","arguments":1}])",
                                 R"([{"arguments":{}}])",
                                 R"([{"arguments":{},"arguments":{},"name":"f"}])",
                                 R"([{"name" "f"}])",
                                 "[{'name':'f'}]",
                                 R"([{"name":"f",}])",
                                 R"([{name:"f"}])",
                                 "[,",
                                 "get_weather[ARGS]{}",
                                 "é世🌴",
                                 R"([{"name":"f","x":01}])",
                                 R"([{"name":"f","x":tru}])",
                                 R"([{"name":"f","x":"\q"}])",
                                 "[{\"name\":\"f\",\"x\":\"\n\"}]",
                                 R"([{"name":"f","x":1.}])",
                                 R"([{"name":"f","x":-}])"}) {
    ExpectTheSameInEveryCut(text, {.content = text, .malformed = true});
  }
  const std::string long_name = R"([{"name":")" + std::string(300, 'n') + R"("}])";
  EXPECT_EQ(Parse(long_name), (Outcome{.content = long_name, .malformed = true}));
  const std::string deep =
      R"([{"arguments":{"a":)" + std::string(10'000, '[') + std::string(10'000, ']') + "}}]";
  EXPECT_EQ(Parse(deep), (Outcome{.content = deep, .malformed = true}));
}

TEST(ToolCallParserTest, WhatWasGivenIsNotGivenAgain) {
  ExpectTheSameInEveryCut(
      R"([{"name":"f","arguments":{"a":1 2}}] tail)",
      {.calls = {{"f", R"({"a":1 )"}}, .content = "2}}] tail", .malformed = true});
  ExpectTheSameInEveryCut(
      R"([{"name":"f","arguments":{}}, {"name":5}])",
      {.calls = {{"f", "{}"}}, .content = R"(, {"name":5}])", .malformed = true});
  ExpectTheSameInEveryCut(
      R"([{"name":"f","arguments":{},"arguments":{}}])",
      {.calls = {{"f", "{}"}}, .content = R"(,"arguments":{}}])", .malformed = true});
}

TEST(ToolCallParserTest, AListThatIsCutOffGivesWhatItHolds) {
  ExpectTheSameInEveryCut(R"([{"name":"f","arguments":{"a":"b)", {.calls = {{"f", R"({"a":"b)"}}});
  ExpectTheSameInEveryCut(R"([{"name":"get_we)", {.content = R"([{"name":"get_we)"});
  ExpectTheSameInEveryCut(R"([{"name":"f","arguments":{}},)",
                          {.calls = {{"f", "{}"}}, .content = ","});
  ExpectTheSameInEveryCut("", {});
}

TEST(ToolCallParserTest, BehindTheListWhiteSpaceGoesAndTextIsContent) {
  const std::string list = R"([{"name":"f","arguments":{}}])";
  ExpectTheSameInEveryCut(list + " \n", {.calls = {{"f", "{}"}}, .complete = true});
  ExpectTheSameInEveryCut(list + "\n\n Done ]",
                          {.calls = {{"f", "{}"}}, .content = "\n\n Done ]", .complete = true});
}

TEST(ToolCallParserTest, ASecondListGoesOnCounting) {
  ToolCallParser parser;
  std::string content;
  std::vector<ToolCallDelta> calls;
  parser.Begin(content);
  parser.Push(R"([{"name":"f","arguments":{}}])", calls, content);
  parser.Begin(content);
  parser.Push(R"([{"name":"g","arguments":{}}])", calls, content);
  EXPECT_THAT(calls, ElementsAre(ToolCallDelta{.name = "f", .arguments = "{}"},
                                 ToolCallDelta{.index = 1, .name = "g", .arguments = "{}"}));
  EXPECT_TRUE(parser.complete());
  parser.Begin(content);
  parser.Push(R"([{"na)", calls, content);
  parser.Begin(content);  // in the middle of one
  EXPECT_EQ(content, R"([{"na)");
  EXPECT_TRUE(parser.malformed());
}

// The calls of a text that is a list of calls, by another parser; nullopt: it is none.
std::optional<std::vector<std::pair<std::string, json>>> Oracle(const std::string& text) {
  bool twice = false;
  std::vector<std::string> keys;
  const json list = json::parse(
      text,
      [&](int depth, json::parse_event_t event, json& parsed) {
        if (depth == 1 && event == json::parse_event_t::object_start) keys.clear();
        if (depth == 2 && event == json::parse_event_t::key) {
          const auto key = parsed.get<std::string>();
          const bool ours = key == "name" || key == "arguments";
          twice |= ours && std::find(keys.begin(), keys.end(), key) != keys.end();
          keys.push_back(key);
        }
        return true;
      },
      /*allow_exceptions=*/false);
  if (!list.is_array() || list.empty() || twice) return std::nullopt;
  std::vector<std::pair<std::string, json>> calls;
  for (const json& call : list) {
    if (!call.is_object() || !call.contains("name") || !call["name"].is_string() ||
        call["name"] == "") {
      return std::nullopt;
    }
    const json arguments = call.contains("arguments") ? call["arguments"] : json::object();
    if (!arguments.is_object()) return std::nullopt;
    calls.emplace_back(call["name"].get<std::string>(), arguments);
  }
  return calls;
}

std::string Mutated(std::mt19937_64& random, std::string text) {
  constexpr std::string_view kPieces[] = {"{",
                                          "}",
                                          "[",
                                          "]",
                                          ",",
                                          ":",
                                          "\"",
                                          "1",
                                          "-0",
                                          ".",
                                          "true",
                                          "null",
                                          "e5",
                                          "\"name\"",
                                          "é",
                                          " ",
                                          "\n",
                                          "\"arguments\":{}",
                                          "\"id\":\"x\","};
  for (uint64_t i = random() % 4; i > 0; --i) {
    size_t at = random() % (text.size() + 1);
    while (at < text.size() && (text[at] & 0xC0) == 0x80) ++at;  // whole characters, as they come
    switch (random() % 3) {
      case 0:
        text.insert(at, kPieces[random() % std::size(kPieces)]);
        break;
      case 1:
        if (at < text.size() && static_cast<unsigned char>(text[at]) < 0x80) text.erase(at, 1);
        break;
      default:
        text.insert(at, text.substr(at, text.find_first_of(",]}", at) - at + 1));
    }
  }
  return text;
}

TEST(ToolCallParserTest, MutatedListsAreJudgedAsAnotherParserJudgesThem) {
  const uint64_t seed = testing::UnitTest::GetInstance()->random_seed();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  const std::vector<std::string> texts = {
      R"([{"name": "f", "arguments": {"a": 1, "b": [true, null, "x"]}}])",
      R"([{"name":"f","arguments":{}},{"arguments":{"é":{"c":-1.5E+2}},"name":"g","id":"1"}])",
      R"( [ { "name" : "f" } ] )"};
  int lists = 0, others = 0;
  for (int i = 0; i < 60'000; ++i) {
    const std::string text = Mutated(random, texts[random() % texts.size()]);
    const Outcome outcome = Parse(text);
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size();) {
      const size_t bytes = 1 + random() % 9;
      pieces.push_back(text.substr(at, bytes));
      at += bytes;
    }
    ASSERT_EQ(Parse(pieces), outcome) << text;
    const auto expected = Oracle(text);
    ASSERT_EQ(outcome.complete && outcome.content.empty(), expected.has_value()) << text;
    (expected ? lists : others) += 1;
    if (!expected) {
      ASSERT_TRUE(text.ends_with(outcome.content)) << text;  // nothing lost behind what was given
      continue;
    }
    ASSERT_EQ(outcome.calls.size(), expected->size()) << text;
    for (size_t k = 0; k < expected->size(); ++k) {
      ASSERT_EQ(outcome.calls[k].name, (*expected)[k].first) << text;
      ASSERT_EQ(json::parse(outcome.calls[k].arguments), (*expected)[k].second) << text;
    }
  }
  EXPECT_GT(lists, 10'000);
  EXPECT_GT(others, 10'000);
}

}  // namespace
}  // namespace behemoth::gateway
