// What a model writes behind its token for tool calls -> calls, piece by piece. Thread-compatible;
// one per sequence. Every cut of the same text gives the same calls and the same content.
//
// The form (mistral's v3 to v7): [{"name": "f", "arguments": {...}, "id": "..."}, ...], the members
// in any order. An id of the model's own is left out: who answers the request draws one. Missing
// arguments are {}. A call is given from where its name and the beginning of its arguments are
// known; arguments come as the model writes them.
//
// Malformed is what is not JSON of this form, a call without a name, a member twice, a name of more
// than kMaxNameBytes or with a backslash, and no call at all. What was not given until then is
// content, and so is all behind it: nothing is lost, nothing comes twice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/text/json_walk.h"

namespace behemoth::gateway {

struct ToolCallDelta {
  uint32_t index = 0;     // of the call in its turn
  std::string name;       // not empty: the call begins here
  std::string arguments;  // JSON text, a piece
  bool operator==(const ToolCallDelta&) const = default;
};

class ToolCallParser {
 public:
  static constexpr size_t kMaxNameBytes = 256;

  // The token was read. A second one begins a second list, whose calls follow.
  void Begin(std::string& content);
  // Adds to `calls`, one entry for each call that gets something.
  void Push(std::string_view text, std::vector<ToolCallDelta>& calls, std::string& content);
  // The text is over: what is held goes out as content, unless it is white space.
  void Finish(std::string& content);

  bool malformed() const { return malformed_; }
  bool unfinished() const { return part_ == Part::kList; }
  // There was a call, and nothing stands half there.
  bool complete() const { return whole_calls_ > 0 && !unfinished() && !malformed_; }

 private:
  // kList: in the list. kBehind: only white space since its end. kText: anything.
  enum class Part : uint8_t { kList, kBehind, kText };
  enum class Member : uint8_t { kNone, kName, kArguments, kOther };

  bool TakeInList(char c, std::vector<ToolCallDelta>& calls);
  bool TakeInCall(char c, bool was_in_string, std::vector<ToolCallDelta>& calls);
  bool EndString();
  bool EndCall(std::vector<ToolCallDelta>& calls);
  void Give(std::vector<ToolCallDelta>& calls);
  void Break(std::string& content);

  Part part_ = Part::kText;
  JsonWalk walk_;
  std::string held_;  // read and not given
  // Of the call that is read.
  std::string string_;  // the one at its own level, without quotes; at most kMaxNameBytes + 1
  std::string name_, arguments_;
  Member member_ = Member::kNone;
  bool has_arguments_ = false, begun_ = false;
  uint32_t calls_in_list_ = 0, whole_calls_ = 0, next_index_ = 0;
  bool malformed_ = false;
};

}  // namespace behemoth::gateway
