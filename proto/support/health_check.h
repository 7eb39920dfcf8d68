// Asks a running process how it is: what container health checks and `helm test` run.
#pragma once

#include <absl/status/status.h>

#include <string>

namespace behemoth::support {

// `target` is HOST:PORT[/SERVICE], a plaintext gRPC health port, or http://HOST:PORT/PATH.
// OK: SERVING, or a status of 200. UNAVAILABLE with what came instead; INVALID_ARGUMENT for a
// target that is neither. Takes 3 s at most.
absl::Status CheckHealth(const std::string& target);

}  // namespace behemoth::support
