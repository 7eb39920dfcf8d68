#include "gateway/session/error_response.h"

#include <string>

namespace behemoth::gateway {

Response ErrorResponse(const ApiError& error) {
  Response response{.status = error.http, .body = ErrorJson(error)};
  if (error.http == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  if (error.http == 429 || error.http == 503) {
    // Official clients retry twice on status alone; this is what spaces them.
    response.headers.emplace_back("Retry-After", std::to_string(error.retry_after_s.value_or(1)));
  }
  return response;
}

Response ErrorResponse(const absl::Status& status) { return ErrorResponse(ToApiError(status)); }

}  // namespace behemoth::gateway
