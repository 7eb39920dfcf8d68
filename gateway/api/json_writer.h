// JSON text by hand, for what is written per token. Thread-safe free functions that append.
#pragma once

#include <string>
#include <string_view>

namespace behemoth::gateway {

// A quoted JSON string on one line. Bytes that are not UTF-8 become U+FFFD, one for each.
void AppendJsonString(std::string_view text, std::string& out);
// The shortest text that reads back equal; a value that JSON cannot say (-inf, NaN) is -9999, the
// number that vLLM's clients already know.
void AppendJsonNumber(double value, std::string& out);
void AppendJsonNumber(float value, std::string& out);

}  // namespace behemoth::gateway
