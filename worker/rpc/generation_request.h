// The worker's own door: a GenerateRequest of the wire, checked field by field, as the value that
// the engine takes. Nothing that the gateway has checked is taken on trust.
#pragma once

#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <vector>

#include "behemoth/worker/v1/worker.pb.h"
#include "worker/schedule/generation.h"
#include "worker/structure/compiled_form.h"

namespace behemoth::worker {

// What the loaded model allows.
struct RequestLimits {
  int32_t vocabulary_size = 0;
  int32_t context_tokens = 0;
  int32_t max_sequences = 0;  // slots: n sequences of a request are admitted together
  std::vector<TokenId> eos_ids;
};

// Bytes of the longest legal GenerateRequest: what the server has to receive.
int MaxRequestBytes(const RequestLimits& limits);

// INVALID_ARGUMENT, the message beginning with the field's name. `drawn_seed` serves a request
// without a seed. The sink is left empty.
absl::StatusOr<GenerationRequest> ToGeneration(const v1::GenerateRequest& message,
                                               const RequestLimits& limits, absl::Time deadline,
                                               uint64_t drawn_seed);

// `structure` as the form that is to be compiled. INVALID_ARGUMENT: none is set.
absl::StatusOr<FormSpec> ToFormSpec(const v1::Structure& message);

// The request_id of any message: 1..128 bytes of [A-Za-z0-9._:-].
absl::Status CheckRequestId(const std::string& request_id);

// ForceIds.ids: 1..64 ids of the vocabulary.
absl::StatusOr<std::vector<TokenId>> ToForcedIds(const v1::ControlRequest::ForceIds& message,
                                                 const RequestLimits& limits);

// At most 1,024 banned and 64 forced ids, each of the vocabulary.
absl::StatusOr<Rewind> ToRewind(const v1::ControlRequest::Rewind& message,
                                const RequestLimits& limits);

}  // namespace behemoth::worker
