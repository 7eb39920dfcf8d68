// The order of detokenizer, stops and split; tests/property/gateway has the cuts and collisions.
#include "gateway/text/text_stream.h"

#include <gtest/gtest.h>

namespace behemoth::gateway {
namespace {

struct Texts {
  std::string reasoning, content, stop;
  bool operator==(const Texts&) const = default;
};

Texts Stream(const std::vector<std::string>& tokens, const std::vector<std::string>& stops,
             TextStreamOptions options) {
  if (!stops.empty()) options.stops = std::make_shared<StopSet>(stops);
  TextStream stream(std::make_shared<TokenTable>(tokens, std::span<const uint32_t>()),
                    std::move(options));
  TextPieces pieces;
  bool stopped = false;
  for (uint32_t id = 0; id < tokens.size() && !stopped; ++id) {
    stopped = stream.Push(std::span(&id, 1), pieces);
  }
  if (!stopped) stream.Finish(pieces);
  return {pieces.reasoning, pieces.content, std::string(stream.matched_stop().value_or(""))};
}

const std::vector<std::string> kTurn = {"<thi",     "nk>\nst",  "op?\n</",
                                        "think>\n", "\nyes st", "op."};

TEST(TextStreamTest, WithoutOptionsTheTextComesAsTheModelWritesIt) {
  EXPECT_EQ(Stream(kTurn, {}, {}), (Texts{"", "<think>\nstop?\n</think>\n\nyes stop.", ""}));
}

TEST(TextStreamTest, AStopInTheThoughtEndsItAllUnlessItsScopeIsTheAnswer) {
  EXPECT_EQ(Stream(kTurn, {"stop"}, {.separate_reasoning = true}), (Texts{"", "", "stop"}));
  EXPECT_EQ(Stream(kTurn, {"stop"}, {.stops_in_answer_only = true, .separate_reasoning = true}),
            (Texts{"stop?", "yes ", "stop"}));
  EXPECT_EQ(Stream(kTurn, {"stop"}, {.stops_in_answer_only = true}),
            (Texts{"", "<think>\nstop?\n</think>\n\nyes ", "stop"}));
}

TEST(TextStreamTest, TheStopIsShownOnlyIfAskedFor) {
  EXPECT_EQ(Stream({"a s", "top b"}, {"stop"}, {}), (Texts{"", "a ", "stop"}));
  EXPECT_EQ(Stream({"a s", "top b"}, {"stop"}, {.include_stop_in_output = true}),
            (Texts{"", "a stop", "stop"}));
  EXPECT_EQ(Stream(kTurn, {"stop"}, {.include_stop_in_output = true, .separate_reasoning = true}),
            (Texts{"stop", "", "stop"}));
}

TEST(TextStreamTest, WhatWasHeldBackComesAtTheEnd) {
  EXPECT_EQ(Stream({"a st"}, {"stop"}, {}), (Texts{"", "a st", ""}));
  EXPECT_EQ(Stream({"ab"}, {"b", "abc"}, {}), (Texts{"", "a", "b"}));
}

TEST(TextStreamTest, NoStopIsLookedForInThePrefill) {
  EXPECT_EQ(Stream({"op b"}, {"stop"}, {.prefill = "a st"}), (Texts{"", "op b", ""}));
}

// Tokens as text, "[C]" for the one that calls begin with.
struct Turn {
  std::string reasoning, content, stop;
  std::vector<ToolCallDelta> calls;
};

Turn StreamCalls(const std::vector<std::string>& tokens, TextStreamOptions options,
                 size_t ids_per_call = 1) {
  const auto token = std::find(tokens.begin(), tokens.end(), "[C]");
  const auto id = static_cast<uint32_t>(token - tokens.begin());
  options.tool_calls_id = id;
  TextStream stream(std::make_shared<TokenTable>(tokens, std::span(&id, 1)), std::move(options));
  TextPieces pieces;
  bool stopped = false;
  std::vector<uint32_t> ids(tokens.size());
  for (uint32_t i = 0; i < ids.size(); ++i) ids[i] = i;
  for (size_t at = 0; at < ids.size() && !stopped; at += ids_per_call) {
    const size_t count = std::min(ids_per_call, ids.size() - at);
    stopped = stream.Push(std::span(ids).subspan(at, count), pieces);
  }
  if (!stopped) stream.Finish(pieces);
  return {pieces.reasoning, pieces.content, std::string(stream.matched_stop().value_or("")),
          pieces.calls};
}

TEST(TextStreamTest, BehindTheTokenForCallsComeCallsInEveryCut) {
  const std::vector<std::string> tokens = {
      " Let me",       " look.\n",   "[C]", " [{\"na", "me\": \"f\", \"argu",
      "ments\": {\"s", "top\": 1}}", "]"};
  for (const bool skip : {true, false}) {
    for (size_t ids = 1; ids <= tokens.size(); ++ids) {
      const Turn turn =
          StreamCalls(tokens,
                      {.detokenizer = {.skip_special_tokens = skip, .strip_leading_space = true},
                       .stops = std::make_shared<StopSet>(std::vector<std::string>{"stop"})},
                      ids);
      EXPECT_EQ(turn.content, "Let me look.\n");
      EXPECT_EQ(turn.stop, "");  // none is looked for in a call
      ASSERT_EQ(turn.calls.size(), 1u);
      EXPECT_EQ(turn.calls[0], (ToolCallDelta{.name = "f", .arguments = "{\"stop\": 1}"}));
    }
  }
}

TEST(TextStreamTest, CallsEndAThoughtAndWhatWasHeldBack) {
  const Turn turn = StreamCalls({"<think>\nhm", "\n</thi", "[C]", "[{\"name\":\"f\"}]"},
                                {.separate_reasoning = true});
  EXPECT_EQ(turn.reasoning, "hm\n</thi");
  EXPECT_EQ(turn.content, "");
  EXPECT_EQ(turn.calls.size(), 1u);
  const Turn behind = StreamCalls({"x\n</think>", "\n\n", "[C]", "[{\"name\":\"f\"}]"},
                                  {.separate_reasoning = true, .prefill = "<think>\n"});
  EXPECT_EQ(behind.reasoning, "x");
  EXPECT_EQ(behind.content, "");
  EXPECT_EQ(behind.calls.size(), 1u);
}

TEST(TextStreamTest, APromptThatEndsWithTheTokenIsFollowedByCalls) {
  const Turn turn = StreamCalls({"[{\"name\":\"f\"}]", " text"}, {.begins_with_calls = true});
  EXPECT_EQ(turn.calls.size(), 1u);
  EXPECT_EQ(turn.content, " text");
}

TEST(TextStreamTest, AMalformedCallIsContentAndNoStopIsLookedForInIt) {
  const Turn turn = StreamCalls({"a ", "[C]", "stop it"}, {});
  EXPECT_EQ(turn.content, "a stop it");
  EXPECT_TRUE(turn.calls.empty());
}

}  // namespace
}  // namespace behemoth::gateway
