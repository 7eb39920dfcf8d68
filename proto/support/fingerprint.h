// By what two processes tell that they read the same file. Thread-safe, no state.
#pragma once

#include <string>
#include <string_view>

namespace behemoth::support {

// Lower-case hex SHA-256 of `bytes`.
std::string Fingerprint(std::string_view bytes);

}  // namespace behemoth::support
