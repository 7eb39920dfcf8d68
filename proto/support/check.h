// CHECK for broken invariants of our own, always on. Never reachable from input.
#pragma once

#include <string_view>

namespace behemoth::support {

// Logs the condition, the place and `detail`, then aborts.
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition,
                              std::string_view detail);

}  // namespace behemoth::support

#define BEHEMOTH_CHECK(condition, ...) \
  (static_cast<bool>(condition)        \
       ? void(0)                       \
       : ::behemoth::support::CheckFailed(__FILE__, __LINE__, #condition, {__VA_ARGS__}))
