// Untrusted bytes -> a JSON object, strictly: UTF-8 without BOM, nothing behind the value, no key
// twice, depth and width bounded, no number that a double cannot hold. Thread-safe. Included by
// api/'s .cc files only: the JSON library stays behind their headers.
#pragma once

#include <absl/status/statusor.h>

#include <nlohmann/json.hpp>
#include <string_view>

namespace behemoth::gateway {

// Members keep their order: a schema's is the order in which its properties are written.
using Json = nlohmann::ordered_json;

inline constexpr int kMaxJsonDepth = 100;
inline constexpr size_t kMaxObjectMembers = 2048;
// Bounds memory: 8 MiB of "[]," or of {"a":1} took 200 MB without it.
inline constexpr size_t kMaxJsonValues = size_t{1} << 20;

// INVALID_ARGUMENT; param is the path of the value at fault ("messages[1].content"), the message
// says where in the body.
absl::StatusOr<Json> ReadJsonObject(std::string_view body);

}  // namespace behemoth::gateway
