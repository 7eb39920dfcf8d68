#include "gateway/text/think_splitter.h"

#include <gtest/gtest.h>

namespace behemoth::gateway {
namespace {

using Texts = std::pair<std::string, std::string>;  // reasoning, answer
constexpr auto kKeep = ThinkSplitter::Tags::kKeep;
constexpr auto kRemove = ThinkSplitter::Tags::kRemove;

Texts Split(std::string_view prefill, std::string_view text, ThinkSplitter::Tags tags = kRemove) {
  ThinkSplitter splitter(prefill, tags);
  Texts texts;
  splitter.Push(text, texts.first, texts.second);
  splitter.Flush(texts.first, texts.second);
  return texts;
}

TEST(ThinkSplitterTest, ABlockAtTheBeginningIsTheThought) {
  EXPECT_EQ(Split("", "<think>\nhm\n</think>\n\nAye."), Texts("hm", "Aye."));
  EXPECT_EQ(Split("", " \n<think>hm</think>Aye. "), Texts("hm", "Aye. "));
  EXPECT_EQ(Split("", "<think></think>Aye"), Texts("", "Aye"));
}

TEST(ThinkSplitterTest, ATagInsideTheAnswerIsAnswer) {
  EXPECT_EQ(Split("", "Say <think>x</think>"), Texts("", "Say <think>x</think>"));
  EXPECT_EQ(Split("", "<think>a</think>b<think>c</think>"), Texts("a", "b<think>c</think>"));
  EXPECT_EQ(Split("", "</think>b"), Texts("", "</think>b"));
}

TEST(ThinkSplitterTest, ABlockNeverClosedIsAllThought) {
  EXPECT_EQ(Split("", "<think>a\n"), Texts("a\n", ""));
  EXPECT_EQ(Split("", "<think>a</thin"), Texts("a</thin", ""));
  EXPECT_EQ(Split("", "<think> \n"), Texts("", ""));
}

TEST(ThinkSplitterTest, APrefillThatLeavesTheBlockOpenIsContinued) {
  EXPECT_EQ(Split("<think>\nOk, so\n", "I say\n</think>\n\nAye"), Texts("I say", "Aye"));
  EXPECT_EQ(Split("<think>\nOk, so\n", "\n</think>Aye"), Texts("", "Aye"));
  EXPECT_EQ(Split("<thi", "nk>a</think>b"), Texts("a", "b"));
  EXPECT_EQ(Split("<think>a</thi", "nk>b"), Texts("", "b"));
  EXPECT_EQ(Split("<think>a</thi", "s"), Texts("s", ""));
}

TEST(ThinkSplitterTest, APrefillThatClosedTheBlockLeavesAnAnswer) {
  EXPECT_EQ(Split("<think>\na\n</think>\n\n", "Aye </think>"), Texts("", "Aye </think>"));
  EXPECT_EQ(Split("<think>a</think>", "\n\nAye"), Texts("", "Aye"));
  EXPECT_EQ(Split("Aye, ", "<think>x"), Texts("", "<think>x"));
}

TEST(ThinkSplitterTest, KeptTagsLoseNothing) {
  EXPECT_EQ(Split("", " <think>\na\n</think>\n\nb", kKeep),
            Texts(" <think>\na\n</think>", "\n\nb"));
  EXPECT_EQ(Split("<think>\nOk\n", "a</think>\nb", kKeep), Texts("a</think>", "\nb"));
  EXPECT_EQ(Split("", "<thin", kKeep), Texts("", "<thin"));
}

TEST(ThinkSplitterTest, KnowsWhetherTheBlockIsOpen) {
  ThinkSplitter splitter("<think>\nOk\n", kRemove);
  std::string thought, answer;
  EXPECT_TRUE(splitter.thinking());
  splitter.Push("a</think", thought, answer);
  EXPECT_TRUE(splitter.thinking());
  splitter.Push(">", thought, answer);
  EXPECT_FALSE(splitter.thinking());
  EXPECT_FALSE(ThinkSplitter("", kRemove).thinking());
  EXPECT_FALSE(ThinkSplitter("<think>a</think>", kKeep).thinking());
}

}  // namespace
}  // namespace behemoth::gateway
