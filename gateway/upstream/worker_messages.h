// The border between worker.proto and our values: the only converter. Free functions, thread-safe.
#pragma once

#include <optional>

#include "behemoth/worker/v1/worker.pb.h"
#include "gateway/upstream/worker_client.h"

namespace behemoth::gateway {

worker::v1::GenerateRequest ToProto(const GenerateSpec& spec);
worker::v1::SetVocabularyRequest ToProto(const TokenTable& table);
// nullopt: an event of a newer worker, skipped.
std::optional<WorkerEvent> FromProto(const worker::v1::GenerateResponse& response);
WorkerReport FromProto(const worker::v1::GetStatusResponse& status);
WorkerLoad FromProto(const worker::v1::WatchLoadResponse& load);

}  // namespace behemoth::gateway
