// Text without regard to case: Unicode's simple folding, one character for one, by the C library's
// tables of its "C.UTF-8" locale. Thread-safe.
#pragma once

#include <string>
#include <string_view>

namespace behemoth::gateway {

// Appends `text`, valid UTF-8, folded.
void AppendFolded(std::string_view text, std::string& out);

}  // namespace behemoth::gateway
