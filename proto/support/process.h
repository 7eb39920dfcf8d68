// The process around a server: signals, and the one way to end.
#pragma once

#include <absl/status/status.h>

#include <cstdint>
#include <string_view>

namespace behemoth::support {

// Blocks SIGTERM and SIGINT in the calling thread and all threads it starts later, ignores SIGPIPE.
// First line of main, before any thread.
void BlockSignals();

// Lets the process open as many files as its hard limit allows; shells give 1,024 by default. The
// new limit, in descriptors.
uint64_t RaiseFileLimit();

// Waits for SIGTERM or SIGINT. Afterwards a second one ends the process at once, exit code 130.
// Returns the signal's number; also returns (0) after RequestShutdown() from any thread.
int WaitForShutdown();

// Wakes WaitForShutdown from inside: a failed device, a lost engine. Thread-safe.
void RequestShutdown();

// Logs and prints "<process>: <message>"; returns 1, the exit code.
int Fail(std::string_view process, const absl::Status& status);

}  // namespace behemoth::support
