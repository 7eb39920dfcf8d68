// Structured logs, one line per event: spdlog with key=value fields.
//
//   support::Log().info("ready listen={} load_ms={}", address, ms);
//
// Thread-safe. Values from outside (names, ids, client fields) pass through Escaped(), so that a
// line break or terminal code cannot forge a line. Prompt text, keys and paths are never logged.
#pragma once

#include <spdlog/logger.h>

#include <string>
#include <string_view>

namespace behemoth::support {

// Before threads. `level`: trace, debug, info, warn, error. `process` is every line's first field.
void InitLog(std::string_view process, std::string_view level);

spdlog::logger& Log();

// At most 200 bytes; control characters, quotes and non-ASCII as \xNN.
std::string Escaped(std::string_view text);

}  // namespace behemoth::support
