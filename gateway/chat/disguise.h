// Tells a control token that the template printed from the same characters typed by a user, without
// touching what the template does: the template runs a second time over user text in which the
// characters that could spell a control token are exchanged one for one for surrogates. Lengths,
// white space, quotes and order stay; no valid text holds a surrogate. If that second print, with
// the exchange undone, equals the first, each of its plain characters came from the template.
//
// Immutable after construction, thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "gateway/chat/prompt_text.h"
#include "gateway/chat/string_matcher.h"

namespace behemoth::gateway {

// Precondition of both: `text` is valid UTF-8 / holds no surrogate.
std::u32string FromUtf8(std::string_view text);
void AppendUtf8(char32_t c, std::string& out);

class Disguise {
 public:
  enum class Depth {
    // Every character that occurs in a control token, save in strings that the template itself
    // names: it may look for "</think>" in a message.
    kSpelling,
    // Whole control tokens only, for templates that look into messages in other ways.
    kTokens,
  };

  // `constants`: the string constants of the template's source. A control token of nothing but
  // white space, quotes and backslashes cannot be hidden and stays text.
  Disguise(std::span<const std::pair<std::string, uint32_t>> control_tokens,
           std::span<const std::string> constants);

  std::u32string Hide(std::string_view user_text, Depth depth) const;
  bool HasControlToken(std::string_view user_text) const;

  // Cuts `printed` into segments. Nullopt unless it is `truth` once the exchange is undone.
  std::optional<std::vector<PromptText::Segment>> Reveal(std::u32string_view printed,
                                                         std::string_view truth) const;

 private:
  char32_t Hidden(char32_t c) const;  // c itself if it cannot be hidden

  StringMatcher control_tokens_, constants_;
  std::unordered_map<char32_t, char32_t> hidden_;
  std::u32string shown_;  // of the surrogate kFirst + i
};

}  // namespace behemoth::gateway
