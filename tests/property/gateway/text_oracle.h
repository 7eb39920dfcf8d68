// What a client must see, by whole-string search: slow, obvious, no state, nothing of gateway/text
// but its options. The oracle of the streaming classes.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace behemoth::gateway::oracle {

// The bytes with U+FFFD for each that is part of no character.
std::string ValidUtf8(std::string_view bytes);
bool IsValidUtf8(std::string_view bytes);

struct FoundStop {
  size_t position = 0;
  size_t index = 0;  // of the stops given
};
// The stop that begins first; of those that begin together the shortest.
std::optional<FoundStop> FindStop(std::string_view text, std::span<const std::string> stops);

struct Split {
  std::string reasoning;
  std::string answer;
};
// The rules of gateway/text/think_splitter.h over the whole turn; only what is behind `prefill`
// is given out.
Split SplitThinking(std::string_view prefill, std::string_view text, bool keep_tags);

}  // namespace behemoth::gateway::oracle
