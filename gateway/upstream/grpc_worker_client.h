// WorkerClient over gRPC's callback API. Thread-safe. One channel per worker.
//
// gRPC's threads only convert and post; a call holds at most kReadAheadEvents events that its loop
// has not taken yet, then it stops reading, and HTTP/2 flow control stops the worker's stream.
#pragma once

#include <memory>
#include <string>

#include "gateway/upstream/worker_client.h"
#include "proto/support/tls.h"

namespace behemoth::gateway {

class Channels;

// `channels` outlives the client and its calls.
absl::StatusOr<std::unique_ptr<WorkerClient>> NewGrpcWorkerClient(
    const std::string& address, const support::ClientTlsConfig& tls, Channels& channels);

}  // namespace behemoth::gateway
