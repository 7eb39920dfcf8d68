// Typed reads from a JSON object of a model folder. Absent and null are the same: the fallback.
// A wrong type or an unusable number is INVALID_ARGUMENT naming the key.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace behemoth::worker {

// Reads `folder`/`name` (at most 64 MiB) as one JSON object. NOT_FOUND if there is no such file.
absl::StatusOr<nlohmann::json> ReadJsonObject(const std::string& folder, const std::string& name);
// The same from text; nesting deeper than 64 is refused. `name` is for messages.
absl::StatusOr<nlohmann::json> ParseJsonObject(const std::string& name, const std::string& text);

// Collects the first error, so that a reader can read all its fields and ask once.
class JsonFields {
 public:
  // `where` prefixes messages ("config.json"). `object` must outlive this.
  JsonFields(std::string where, const nlohmann::json& object);

  std::optional<int64_t> Int(const char* key, int64_t least, int64_t most);
  std::optional<double> Number(const char* key, double least, double most);
  std::optional<bool> Bool(const char* key);
  std::optional<std::string> String(const char* key);
  // Null if absent.
  const nlohmann::json* Object(const char* key);
  const nlohmann::json* Array(const char* key);
  // A required key.
  int64_t RequiredInt(const char* key, int64_t least, int64_t most);

  void Refuse(const std::string& key, const std::string& what);
  const absl::Status& status() const { return status_; }

 private:
  const nlohmann::json* Find(const char* key) const;

  std::string where_;
  const nlohmann::json& object_;
  absl::Status status_;
};

}  // namespace behemoth::worker
