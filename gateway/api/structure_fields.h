// What the text must look like, in all the fields that clients have for it: RequestFields -> one
// StructureOptions. Thread-safe. Included by api/'s .cc files only.
#pragma once

#include <absl/status/statusor.h>

#include <optional>

#include "gateway/api/generation_options.h"
#include "gateway/api/request_fields.h"

namespace behemoth::gateway {

// Absent = any text. INVALID_ARGUMENT: of a wrong type, or two fields that both say something.
absl::StatusOr<std::optional<StructureOptions>> ReadStructure(RequestFields& fields);

}  // namespace behemoth::gateway
