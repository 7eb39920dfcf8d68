#include "gateway/text/think_splitter.h"

#include <algorithm>

namespace behemoth::gateway {
namespace {

constexpr std::string_view kOpen = "<think>";
constexpr std::string_view kClose = "</think>";

bool IsSpace(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

}  // namespace

ThinkSplitter::ThinkSplitter(std::string_view prefill, Tags tags) : tags_(tags) {
  std::string reasoning, answer;
  Push(prefill, reasoning, answer);
  prefill_bytes_ = held_.size();
}

void ThinkSplitter::Push(std::string_view text, std::string& reasoning, std::string& answer) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (state_ == State::kAnswer) {
      answer += text.substr(i);
      return;
    }
    Take(text[i], reasoning, answer);
  }
}

void ThinkSplitter::Flush(std::string& reasoning, std::string& answer) {
  const bool all = tags_ == Tags::kKeep || tag_bytes_ > 0 || state_ == State::kThinking;
  if (state_ == State::kStart) {
    Release(held_.size(), answer);  // a whole answer of white space or of half a tag
  } else if (thinking() && all) {
    Release(held_.size(), reasoning);
  }
  held_.clear();
}

// held_ = white space + the first tag_bytes_ of the tag that may come in this state.
void ThinkSplitter::Take(char c, std::string& reasoning, std::string& answer) {
  const bool opening = state_ == State::kStart;
  const std::string_view tag = opening ? kOpen : kClose;
  if (state_ == State::kClosed) {
    if (tags_ == Tags::kRemove && IsSpace(c)) return;
    state_ = State::kAnswer;
    answer.push_back(c);
    return;
  }
  if (tag[tag_bytes_] == c) {
    held_.push_back(c);
    if (++tag_bytes_ < tag.size()) return;
    tag_bytes_ = 0;
    if (tags_ == Tags::kKeep) {
      Release(held_.size(), reasoning);
    } else {
      held_.clear();  // the tag and the white space in front of it
      prefill_bytes_ = 0;
    }
    state_ = opening ? State::kOpened : State::kClosed;
    return;
  }
  if (tag_bytes_ > 0) {  // not the tag after all; '<' is in it only once, so c may begin it anew
    tag_bytes_ = 0;
    state_ = opening ? State::kAnswer : State::kThinking;
    Release(held_.size(), opening ? answer : reasoning);
    if (opening) {
      answer.push_back(c);
    } else {
      Take(c, reasoning, answer);
    }
    return;
  }
  if (IsSpace(c)) {
    if (tags_ == Tags::kKeep && state_ != State::kStart) {
      Release(held_.size(), reasoning);
      reasoning.push_back(c);
    } else if (state_ != State::kOpened) {
      held_.push_back(c);
    }
    return;
  }
  state_ = opening ? State::kAnswer : State::kThinking;
  std::string& out = opening ? answer : reasoning;
  Release(held_.size(), out);
  out.push_back(c);
}

void ThinkSplitter::Release(size_t bytes, std::string& out) {
  const size_t hidden = std::min(prefill_bytes_, bytes);
  out.append(held_, hidden, bytes - hidden);
  held_.erase(0, bytes);
  prefill_bytes_ -= hidden;
}

}  // namespace behemoth::gateway
