// A body checked against field_table.h: after Read, a getter cannot meet a wrong type or range.
// Thread-compatible. Included by api/'s .cc files only.
#pragma once

#include <absl/status/statusor.h>

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/api/field_table.h"
#include "gateway/api/generation_options.h"
#include "gateway/api/json_document.h"

namespace behemoth::gateway {

class RequestFields {
 public:
  static absl::StatusOr<RequestFields> Read(std::string_view body, uint8_t route);

  // By the field's own name, whatever alias the client used. Null if absent or JSON null.
  const Json* Find(std::string_view name) const;
  // The name that the client used, for error messages.
  std::string NameOf(std::string_view name) const;

  std::optional<bool> Bool(std::string_view name) const;
  std::optional<double> Number(std::string_view name) const;
  std::optional<int64_t> Integer(std::string_view name) const;
  std::optional<uint32_t> Count(std::string_view name) const;  // an integer >= 0 by its range
  std::optional<std::string> String(std::string_view name) const;
  std::vector<std::string> Strings(std::string_view name) const;
  std::vector<uint32_t> Ids(std::string_view name) const;

  // Keeps the first 32: a body of unknown names must not become a reply of warnings.
  void Warn(std::string_view field, std::string_view message);

  std::vector<Warning> warnings;

 private:
  struct Value {
    std::string written_name;
    Json json;
  };
  absl::Status Accept(const std::string& name, Json& json, uint8_t route);

  std::map<std::string, Value, std::less<>> values_;
};

// Ids from JSON: INVALID_ARGUMENT names the element.
absl::StatusOr<std::vector<uint32_t>> ReadIds(std::string_view name, const Json& json,
                                              size_t max_ids);

// Prefer: handling=strict turns the first warning into INVALID_ARGUMENT.
absl::Status CheckStrict(const ParseOptions& options, const std::vector<Warning>& warnings);

}  // namespace behemoth::gateway
