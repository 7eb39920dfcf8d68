// The description of the HTTP contract that GET /openapi.json serves. Thread-safe.
//
// Fields come from field_table, routes from the caller's own route table; what neither holds
// (summaries, the shapes of replies, of structured fields and of errors) from openapi_parts.json.
// Source: OpenAPI 3.1.0, JSON Schema 2020-12.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace behemoth::gateway {

struct DescribedRoute {
  std::string_view method;
  std::string_view pattern;  // a "*" is described as the parameter {id}
  std::string_view name;     // a key of `routes` in openapi_parts.json
  bool is_public = false;    // asks for no API key
};

// One document, JSON text. A route that openapi_parts.json does not know appears by its name alone
// (tests/unit/gateway/api/openapi_test.cc lets none through). Beside JSON Schema's words a field
// has
//   x-support   works | not_yet (only `enum` is taken) | warned (taken, named in `warnings`) |
//               no_effect
//   x-alias-of  the field that it means; x-aliases  the other way round
//   x-max-bytes the limit in bytes, where maxLength counts characters
std::string OpenApiJson(std::span<const DescribedRoute> routes, std::string_view version);

}  // namespace behemoth::gateway
