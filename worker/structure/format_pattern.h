// JSON Schema's formats as regular expressions of strings. Constant data, thread-safe.
#pragma once

#include <string_view>

namespace behemoth::worker {

// Of fewer texts than the formats' RFCs have: no leap seconds, no quoted locals. Empty: not known.
std::string_view FormatPattern(std::string_view format);

}  // namespace behemoth::worker
