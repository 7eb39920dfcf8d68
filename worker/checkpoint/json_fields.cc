#include "worker/checkpoint/json_fields.h"

#include <absl/strings/str_cat.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <utility>

namespace behemoth::worker {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kMaxFileBytes = 64u << 20;  // the 123B's index has 2,027 names in 0.2 MB
constexpr int kMaxDepth = 64;                  // a parsed value is freed by recursion

bool NestsTooDeep(const std::string& text) {
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\')
        ++i;
      else if (c == '"')
        quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxDepth) return true;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return false;
}

}  // namespace

absl::StatusOr<Json> ParseJsonObject(const std::string& name, const std::string& text) {
  if (NestsTooDeep(text)) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": nests deeper than ", kMaxDepth));
  }
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": is not a JSON object"));
  }
  return json;
}

absl::StatusOr<Json> ReadJsonObject(const std::string& folder, const std::string& name) {
  const std::filesystem::path path = std::filesystem::path(folder) / name;
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    return absl::NotFoundError(absl::StrCat(name, ": no such file in the model folder"));
  }
  const uint64_t bytes = std::filesystem::file_size(path, error);
  if (error || bytes > kMaxFileBytes) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": larger than ", kMaxFileBytes));
  }
  std::ifstream stream(path, std::ios::binary);
  std::string text(bytes, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(bytes));
  if (static_cast<uint64_t>(stream.gcount()) != bytes) {
    return absl::UnavailableError(absl::StrCat(name, ": cannot be read"));
  }
  return ParseJsonObject(name, text);
}

JsonFields::JsonFields(std::string where, const Json& object)
    : where_(std::move(where)), object_(object) {}

const Json* JsonFields::Find(const char* key) const {
  const auto found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

void JsonFields::Refuse(const std::string& key, const std::string& what) {
  if (!status_.ok()) return;
  status_ = absl::InvalidArgumentError(absl::StrCat(where_, ": ", key, ": ", what));
}

std::optional<int64_t> JsonFields::Int(const char* key, int64_t least, int64_t most) {
  const Json* value = Find(key);
  if (value == nullptr) return std::nullopt;
  const bool fits = value->is_number_unsigned()
                        ? value->get<uint64_t>() <= uint64_t{std::numeric_limits<int64_t>::max()}
                        : value->is_number_integer();
  if (!fits || value->get<int64_t>() < least || value->get<int64_t>() > most) {
    Refuse(key, absl::StrCat("must be an integer from ", least, " to ", most));
    return std::nullopt;
  }
  return value->get<int64_t>();
}

int64_t JsonFields::RequiredInt(const char* key, int64_t least, int64_t most) {
  if (Find(key) == nullptr) Refuse(key, "is missing");
  return Int(key, least, most).value_or(least);
}

std::optional<double> JsonFields::Number(const char* key, double least, double most) {
  const Json* value = Find(key);
  if (value == nullptr) return std::nullopt;
  const double number = value->is_number() ? value->get<double>() : std::nan("");
  if (!(number >= least && number <= most)) {
    Refuse(key, absl::StrCat("must be a number from ", least, " to ", most));
    return std::nullopt;
  }
  return number;
}

std::optional<bool> JsonFields::Bool(const char* key) {
  const Json* value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) {
    Refuse(key, "must be true or false");
    return std::nullopt;
  }
  return value->get<bool>();
}

std::optional<std::string> JsonFields::String(const char* key) {
  const Json* value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) {
    Refuse(key, "must be a string");
    return std::nullopt;
  }
  return value->get<std::string>();
}

const Json* JsonFields::Object(const char* key) {
  const Json* value = Find(key);
  if (value == nullptr || value->is_object()) return value;
  Refuse(key, "must be an object");
  return nullptr;
}

const Json* JsonFields::Array(const char* key) {
  const Json* value = Find(key);
  if (value == nullptr || value->is_array()) return value;
  Refuse(key, "must be a list");
  return nullptr;
}

}  // namespace behemoth::worker
