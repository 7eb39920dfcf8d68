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

}  // namespace
}  // namespace behemoth::gateway
