// Structured logs, one line per event: spdlog with key=value fields.
//
//   support::Log().info("ready listen={} load_ms={}", address, ms);
//
// Thread-safe, and never waits for a reader: log_sink.h. Values from outside (names, ids, client
// fields) pass through Escaped(), so that a line break or terminal code cannot forge a line. Prompt
// text, keys and paths are never logged.
#pragma once

#include <spdlog/logger.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace behemoth::support {

// After BlockSignals, before threads. `level`: trace, debug, info, warn, error. `process` is every
// line's first field. What gRPC and protobuf have to say comes as lines of this log too.
void InitLog(std::string_view process, std::string_view level);

spdlog::logger& Log();

// A line for a person, as it is, in the order of the log; to stderr before InitLog.
void PrintLine(std::string_view text);

// Lines that nobody took in time, since InitLog.
uint64_t DroppedLogLines();

// At most 200 bytes; control characters, quotes and non-ASCII as \xNN.
std::string Escaped(std::string_view text);

}  // namespace behemoth::support
