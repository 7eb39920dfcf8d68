#include "gateway/api/request_fields.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include <utility>

#include "gateway/api/api_error.h"
#include "gateway/api/json_document.h"

namespace behemoth::gateway {
namespace {

using json = Json;

// %.15g: every bound of the table in full.
std::string Range(const FieldSpec& field) {
  return absl::StrFormat("must be %s %.15g and at most %.15g", field.open_min ? "over" : "at least",
                         field.min, field.max);
}

absl::Status CheckNumber(const FieldSpec& field, std::string_view name, const json& value) {
  const bool integer = field.kind == FieldKind::kInteger;
  if (integer ? !value.is_number_integer() : !value.is_number()) {
    return InvalidField(name, integer ? "must be an integer" : "must be a number");
  }
  const double number = value.get<double>();
  // Numbers travel as float: what is over 0 must still be over 0 there.
  const bool low = field.open_min ? static_cast<float>(number) <= field.min : number < field.min;
  if (low || number > field.max) return InvalidField(name, Range(field));
  return absl::OkStatus();
}

absl::Status CheckStrings(const FieldSpec& field, std::string_view name, const json& value) {
  constexpr size_t kMaxStrings = 64;
  const auto check = [&](const json& text) {
    if (!text.is_string()) return InvalidField(name, "must be a string or a list of strings");
    const size_t bytes = text.get_ref<const std::string&>().size();
    if (bytes >= 1 && bytes <= field.max) return absl::OkStatus();
    return InvalidField(name, absl::StrCat("a string must have 1 to ", field.max, " bytes"));
  };
  if (!value.is_array()) return value == "" ? absl::OkStatus() : check(value);
  if (value.size() > kMaxStrings) {
    return InvalidField(name, absl::StrCat("at most ", kMaxStrings, " strings"));
  }
  for (const json& text : value) {
    if (absl::Status bad = check(text); !bad.ok()) return bad;
  }
  return absl::OkStatus();
}

absl::Status CheckKind(const FieldSpec& field, std::string_view name, const json& value) {
  switch (field.kind) {
    case FieldKind::kBool:
      return value.is_boolean() ? absl::OkStatus() : InvalidField(name, "must be true or false");
    case FieldKind::kInteger:
    case FieldKind::kNumber:
      return CheckNumber(field, name, value);
    case FieldKind::kString:
      if (!value.is_string()) return InvalidField(name, "must be a string");
      if (value.get_ref<const std::string&>().size() > field.max) {
        return InvalidField(name, absl::StrCat("must have at most ", field.max, " bytes"));
      }
      return absl::OkStatus();
    case FieldKind::kStringOrList:
      return CheckStrings(field, name, value);
    case FieldKind::kIdList:
      return ReadIds(name, value, static_cast<size_t>(field.max)).status();
    case FieldKind::kList:
      return value.is_array() ? absl::OkStatus() : InvalidField(name, "must be a list");
    case FieldKind::kObject:
      return value.is_object() ? absl::OkStatus() : InvalidField(name, "must be an object");
    case FieldKind::kAny:
      return absl::OkStatus();
  }
  return absl::OkStatus();
}

bool IsNeutral(const FieldSpec& field, const json& value) {
  if (value.is_null() || value == false || value == "") return true;
  if (value.is_structured() && value.empty()) return true;
  if (field.neutral.empty()) return false;
  for (const json& neutral : json::parse(field.neutral)) {
    if (value == neutral) return true;
  }
  return false;
}

}  // namespace

absl::StatusOr<std::vector<uint32_t>> ReadIds(std::string_view name, const json& value,
                                              size_t max_ids) {
  if (!value.is_array()) return InvalidField(name, "must be a list of token ids");
  if (value.size() > max_ids) return InvalidField(name, absl::StrCat("at most ", max_ids, " ids"));
  std::vector<uint32_t> ids;
  ids.reserve(value.size());
  for (const json& id : value) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > UINT32_MAX) {
      return InvalidField(absl::StrCat(std::string(name), "[", ids.size(), "]"),
                          "must be a token id");
    }
    ids.push_back(id.get<uint32_t>());
  }
  return ids;
}

absl::Status CheckStrict(const ParseOptions& options, const std::vector<Warning>& warnings) {
  if (!options.strict || warnings.empty()) return absl::OkStatus();
  return InvalidField(warnings[0].field, warnings[0].message);
}

absl::StatusOr<RequestFields> RequestFields::Read(std::string_view body, uint8_t route) {
  auto root = ReadJsonObject(body);
  if (!root.ok()) return root.status();
  RequestFields fields;
  for (auto& [name, value] : root->items()) {
    if (absl::Status bad = fields.Accept(name, value, route); !bad.ok()) return bad;
  }
  return fields;
}

absl::Status RequestFields::Accept(const std::string& name, json& value, uint8_t route) {
  const FieldSpec* field = FindField(name, route);
  if (field == nullptr) {
    Warn(name, "unknown field, ignored");
    return absl::OkStatus();
  }
  if (value.is_null()) return absl::OkStatus();
  if (absl::Status bad = CheckKind(*field, name, value); !bad.ok()) return bad;
  switch (field->support) {
    case Support::kNoEffect:
      return absl::OkStatus();
    case Support::kNotYet:
      if (IsNeutral(*field, value)) return absl::OkStatus();
      return InvalidField(
          name, field->use_instead.empty()
                    ? "is not supported yet"
                    : absl::StrCat("is not supported here: use ", std::string(field->use_instead)));
    case Support::kWarned:
      if (!IsNeutral(*field, value)) Warn(name, "is not supported, ignored");
      return absl::OkStatus();
    case Support::kWorks:
      break;
  }
  const std::string own_name(field->alias_of.empty() ? field->name : field->alias_of);
  const auto at = values_.find(own_name);
  if (at == values_.end()) {
    values_.emplace(own_name, Value{name, std::move(value)});
  } else if (at->second.json != value) {
    const bool take = field->alias_of.empty();
    const std::string kept = take ? name : at->second.written_name;
    const std::string lost = take ? at->second.written_name : name;
    Warn(lost, absl::StrCat("means the same as ", kept, ", which says otherwise and counts"));
    if (take) at->second = Value{name, std::move(value)};
  }
  return absl::OkStatus();
}

void RequestFields::Warn(std::string_view field, std::string_view message) {
  constexpr size_t kMaxWarnings = 32;
  constexpr size_t kMaxFieldBytes = 96;
  if (warnings.size() >= kMaxWarnings) return;
  warnings.push_back({std::string(field.substr(0, kMaxFieldBytes)), std::string(message)});
}

const json* RequestFields::Find(std::string_view name) const {
  const auto at = values_.find(name);
  return at == values_.end() ? nullptr : &at->second.json;
}

std::string RequestFields::NameOf(std::string_view name) const {
  const auto at = values_.find(name);
  return at == values_.end() ? std::string(name) : at->second.written_name;
}

std::optional<bool> RequestFields::Bool(std::string_view name) const {
  const json* value = Find(name);
  return value ? std::optional(value->get<bool>()) : std::nullopt;
}

std::optional<double> RequestFields::Number(std::string_view name) const {
  const json* value = Find(name);
  return value ? std::optional(value->get<double>()) : std::nullopt;
}

std::optional<int64_t> RequestFields::Integer(std::string_view name) const {
  const json* value = Find(name);
  return value ? std::optional(value->get<int64_t>()) : std::nullopt;
}

std::optional<uint32_t> RequestFields::Count(std::string_view name) const {
  const json* value = Find(name);
  return value ? std::optional(value->get<uint32_t>()) : std::nullopt;
}

std::optional<std::string> RequestFields::String(std::string_view name) const {
  const json* value = Find(name);
  return value ? std::optional(value->get<std::string>()) : std::nullopt;
}

std::vector<std::string> RequestFields::Strings(std::string_view name) const {
  const json* value = Find(name);
  if (value == nullptr || *value == "") return {};
  if (value->is_string()) return {value->get<std::string>()};
  return value->get<std::vector<std::string>>();
}

std::vector<uint32_t> RequestFields::Ids(std::string_view name) const {
  const json* value = Find(name);
  return value ? value->get<std::vector<uint32_t>>() : std::vector<uint32_t>{};
}

}  // namespace behemoth::gateway
