// A rendered prompt: text, and the control tokens that the template itself printed. A value.
//
// What a user typed is always in text segments, so "[INST]" typed by a user never becomes a token.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace behemoth::gateway {

struct PromptText {
  using Segment = std::variant<std::string, uint32_t>;  // text, or a control id
  std::vector<Segment> segments;                        // no empty text, no two texts in a row
  std::string text;                                     // the whole as the template printed it
};

}  // namespace behemoth::gateway
