// Splits a stream of text into thinking and answer at "<think>" and "</think>". Thread-compatible;
// one per sequence. Every cut of the same text gives the same two texts.
//
// Works on text because the tags are not tokens of this vocabulary (spec model.md 2.2). The rules:
//  - A block opens at "<think>" only as the first thing of the assistant's turn, prefill included,
//    white space aside; it closes at the first "</think>"; a turn has one block. "<think>" inside
//    an answer and "</think>" without a block are answer.
//  - kRemove: the tags and the white space that touches them are in neither text. kKeep: nothing is
//    lost; all up to and with "</think>" is thinking, all behind it answer.
//  - A block never closed is all thinking.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace behemoth::gateway {

class ThinkSplitter {
 public:
  enum class Tags { kRemove, kKeep };

  // `prefill`: what the prompt already holds of the assistant's turn, "" for a fresh turn. Its text
  // is in neither output; a block or a tag that it leaves open goes on.
  explicit ThinkSplitter(std::string_view prefill, Tags tags = Tags::kRemove);

  void Push(std::string_view text, std::string& reasoning, std::string& answer);
  void Flush(std::string& reasoning, std::string& answer);

  // The block is open: what comes next is thinking, as far as is known.
  bool thinking() const { return state_ == State::kOpened || state_ == State::kThinking; }

 private:
  // kStart: nothing but white space and a prefix of "<think>" yet. kOpened: behind "<think>", only
  // white space yet. kClosed: behind "</think>", only white space yet.
  enum class State { kStart, kOpened, kThinking, kClosed, kAnswer };

  void Take(char c, std::string& reasoning, std::string& answer);
  void Release(size_t bytes, std::string& out);

  const Tags tags_;
  State state_ = State::kStart;
  std::string held_;  // undecided: white space, then tag_bytes_ of a tag
  size_t tag_bytes_ = 0;
  size_t prefill_bytes_ = 0;  // of held_, in front: never given out
};

}  // namespace behemoth::gateway
