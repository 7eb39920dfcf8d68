#include "gateway/text/tool_call_parser.h"

#include <absl/strings/ascii.h>

#include <utility>

namespace behemoth::gateway {
namespace {

// Depth of what stands in the list, and of what stands in a call.
constexpr size_t kListDepth = 1;
constexpr size_t kCallDepth = 2;

}  // namespace

void ToolCallParser::Begin(std::string& content) {
  if (part_ == Part::kList) Break(content);
  part_ = Part::kList;
  walk_ = {};
  held_.clear();
  calls_in_list_ = 0;
}

void ToolCallParser::Push(std::string_view text, std::vector<ToolCallDelta>& calls,
                          std::string& content) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (part_ == Part::kText) {
      content += text.substr(i);
      return;
    }
    held_ += text[i];
    if (part_ == Part::kBehind) {
      if (absl::ascii_isspace(static_cast<unsigned char>(text[i]))) continue;
      part_ = Part::kText;
      content += std::exchange(held_, {});
    } else if (!TakeInList(text[i], calls)) {
      Break(content);
    }
  }
}

void ToolCallParser::Finish(std::string& content) {
  const bool says = held_.find_first_not_of(" \t\r\n") != std::string::npos;
  if (part_ == Part::kList && says) content += held_;
  held_.clear();
}

// False: malformed.
bool ToolCallParser::TakeInList(char c, std::vector<ToolCallDelta>& calls) {
  const size_t before = walk_.depth();
  const bool was_in_string = walk_.in_string();
  if (!walk_.Take(c)) return false;
  if (before > kCallDepth) {  // inside a value
    if (member_ == Member::kArguments) arguments_ += c;
    if (begun_) Give(calls);
    return true;
  }
  if (before == kCallDepth) return TakeInCall(c, was_in_string, calls);
  if (absl::ascii_isspace(static_cast<unsigned char>(c))) return true;
  if (before == 0) return c == '[';
  if (c == ']') {
    part_ = Part::kBehind;
    if (calls_in_list_ > 0) held_.clear();
    return calls_in_list_ > 0;
  }
  if (c == '{') {
    name_.clear();
    arguments_.clear();
    member_ = Member::kNone;
    has_arguments_ = begun_ = false;
  }
  return c == '{' || c == ',';
}

// At the call's own level.
bool ToolCallParser::TakeInCall(char c, bool was_in_string, std::vector<ToolCallDelta>& calls) {
  if (was_in_string) {
    if (!walk_.in_string()) return EndString();
    if (string_.size() <= kMaxNameBytes) string_ += c;
    return true;
  }
  if (walk_.in_string()) {
    string_.clear();
    return walk_.string_is_key() || member_ != Member::kArguments;
  }
  if (walk_.depth() == kListDepth) return EndCall(calls);
  const bool is_value = !absl::ascii_isspace(static_cast<unsigned char>(c)) && c != ':' && c != ',';
  if (!is_value || member_ == Member::kOther) return true;
  if (member_ != Member::kArguments || c != '{') return false;
  has_arguments_ = true;
  arguments_ = c;
  if (!name_.empty()) Give(calls);
  return true;
}

bool ToolCallParser::EndString() {
  if (!walk_.string_is_key()) {
    if (member_ != Member::kName) return true;
    name_ = string_;
    return !name_.empty() && name_.size() <= kMaxNameBytes && name_.find('\\') == std::string::npos;
  }
  member_ = string_ == "name"        ? Member::kName
            : string_ == "arguments" ? Member::kArguments
                                     : Member::kOther;
  return !(member_ == Member::kName && !name_.empty()) &&
         !(member_ == Member::kArguments && has_arguments_);
}

bool ToolCallParser::EndCall(std::vector<ToolCallDelta>& calls) {
  if (name_.empty()) return false;
  if (!has_arguments_) arguments_ = "{}";
  Give(calls);
  held_.clear();
  ++calls_in_list_;
  ++whole_calls_;
  return true;
}

// What is held is told by it: the name, and the arguments so far.
void ToolCallParser::Give(std::vector<ToolCallDelta>& calls) {
  if (begun_ && arguments_.empty()) return;
  if (!begun_) ++next_index_;
  const uint32_t index = next_index_ - 1;
  if (calls.empty() || calls.back().index != index) calls.push_back({.index = index});
  if (!std::exchange(begun_, true)) calls.back().name = name_;
  calls.back().arguments += std::exchange(arguments_, {});
  held_.clear();
}

void ToolCallParser::Break(std::string& content) {
  malformed_ = true;
  part_ = Part::kText;
  content += std::exchange(held_, {});
}

}  // namespace behemoth::gateway
