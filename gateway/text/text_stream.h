// Ids -> what a client sees, for one sequence: detokenizer, stop matcher and think splitter in the
// order that the request's stop_scope asks for. Thread-compatible.
//
// Streaming or not, and however the ids are cut into calls, the texts are the same.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/text/detokenizer.h"
#include "gateway/text/stop_matcher.h"
#include "gateway/text/think_splitter.h"
#include "gateway/text/tool_call_parser.h"

namespace behemoth::gateway {

struct TextStreamOptions {
  DetokenizerOptions detokenizer;
  std::shared_ptr<const StopSet> stops;  // null = none
  bool stops_in_answer_only = false;     // stop_scope "answer"
  bool include_stop_in_output = false;
  bool separate_reasoning = false;  // else reasoning stays in the content, tags and all
  std::string prefill;              // of the assistant's turn in the prompt; "" = fresh
  // The control token that tool calls begin with; absent = a token like any other.
  std::optional<uint32_t> tool_calls_id;
  bool begins_with_calls = false;  // the prompt ends with that token
};

// One step's text; cleared by the caller.
struct TextPieces {
  std::string content;
  std::string reasoning;
  std::vector<ToolCallDelta> calls;
  bool empty() const { return content.empty() && reasoning.empty() && calls.empty(); }
};

class TextStream {
 public:
  TextStream(std::shared_ptr<const TokenTable> table, TextStreamOptions options);

  // Appends what the ids make certain. True: a text stop was found; the caller cancels the
  // generation and calls nothing more.
  bool Push(std::span<const uint32_t> ids, TextPieces& out);
  // The sequence is over: gives out what was held back. True as above.
  bool Finish(TextPieces& out);

  // The stop found, for stop_reason.
  std::optional<std::string_view> matched_stop() const;
  // Inside the think block: a token now counts as a reasoning token.
  bool thinking() const { return !in_calls_ && splitter_.thinking(); }
  // What has become of the calls.
  const ToolCallParser& calls() const { return calls_; }

 private:
  bool BeginCalls(TextPieces& out);
  bool Route(std::string_view text, bool last, TextPieces& out);

  TextStreamOptions options_;
  Detokenizer detokenizer_;
  StopMatcher matcher_;
  ThinkSplitter splitter_;
  ToolCallParser calls_;
  bool in_calls_ = false;
  std::string text_, before_stop_, thought_, answer_;  // reused from call to call
};

}  // namespace behemoth::gateway
