// Whether bytes go on as UTF-8 (Unicode 16, table 3-7: no overlong forms, no surrogates). xgrammar
// counts continuation bytes only. Free functions, thread-safe.
#pragma once

#include <cstdint>
#include <string_view>

namespace behemoth::worker {

// Where in a character a text stands; kUtf8Start = between two. kUtf8Broken is for ever.
using Utf8State = uint8_t;
constexpr Utf8State kUtf8Start = 0;
constexpr Utf8State kUtf8States = 8;
constexpr Utf8State kUtf8Broken = 8;

constexpr bool IsJsonSpace(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

Utf8State WalkUtf8(Utf8State state, std::string_view bytes);

}  // namespace behemoth::worker
