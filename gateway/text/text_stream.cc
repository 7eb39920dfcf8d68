#include "gateway/text/text_stream.h"

#include <utility>

namespace behemoth::gateway {

TextStream::TextStream(std::shared_ptr<const TokenTable> table, TextStreamOptions options)
    : options_(std::move(options)),
      detokenizer_(std::move(table), options_.detokenizer),
      matcher_(options_.stops),
      splitter_(options_.prefill, options_.separate_reasoning ? ThinkSplitter::Tags::kRemove
                                                              : ThinkSplitter::Tags::kKeep),
      in_calls_(options_.begins_with_calls) {
  std::string content;  // nothing stands before them
  if (in_calls_) calls_.Begin(content);
}

bool TextStream::Push(std::span<const uint32_t> ids, TextPieces& out) {
  text_.clear();
  for (const uint32_t id : ids) {
    if (id != options_.tool_calls_id) {
      detokenizer_.Push(id, text_);
    } else if (BeginCalls(out)) {
      return true;
    }
  }
  return Route(text_, /*last=*/false, out);
}

// What was held back in front of them is decided: nothing goes on there.
bool TextStream::BeginCalls(TextPieces& out) {
  detokenizer_.Flush(text_);
  const bool stopped = Route(text_, /*last=*/!in_calls_, out);
  text_.clear();
  if (stopped) return true;
  in_calls_ = true;
  calls_.Begin(out.content);
  return false;
}

bool TextStream::Finish(TextPieces& out) {
  text_.clear();
  detokenizer_.Flush(text_);
  const bool stopped = Route(text_, /*last=*/true, out);
  if (in_calls_) calls_.Finish(out.content);
  return stopped;
}

// Calls and what comes behind them go their own way. Scope all: stops first, then the split. Scope
// answer: the split first, stops in its answer only.
bool TextStream::Route(std::string_view text, bool last, TextPieces& out) {
  if (in_calls_) {
    calls_.Push(text, out.calls, out.content);
    return false;
  }
  std::string& thought = options_.separate_reasoning ? out.reasoning : out.content;
  const auto stop_at = [&](std::string_view from, std::string& to) {
    bool stopped = matcher_.Push(from, to);
    if (last && !stopped) stopped = matcher_.Flush(to);
    if (stopped && options_.include_stop_in_output) to += *matched_stop();
    return stopped;
  };
  bool stopped = false;
  thought_.clear();
  answer_.clear();
  if (options_.stops_in_answer_only) {
    splitter_.Push(text, thought_, answer_);
    if (last) splitter_.Flush(thought_, answer_);
    thought += thought_;
    return stop_at(answer_, out.content);
  }
  before_stop_.clear();
  stopped = stop_at(text, before_stop_);
  splitter_.Push(before_stop_, thought_, answer_);
  if (last || stopped) splitter_.Flush(thought_, answer_);
  thought += thought_;
  out.content += answer_;
  return stopped;
}

std::optional<std::string_view> TextStream::matched_stop() const {
  const std::optional<size_t> match = matcher_.match();
  if (!match) return std::nullopt;
  return options_.stops->text(*match);
}

}  // namespace behemoth::gateway
