// A status as an HTTP reply, by api/api_error's table. Thread-safe.
#pragma once

#include <absl/status/status.h>

#include <string_view>

#include "gateway/api/api_error.h"
#include "gateway/http/message.h"

namespace behemoth::gateway {

Response ErrorResponse(const ApiError& error);
Response ErrorResponse(const absl::Status& status);

}  // namespace behemoth::gateway
