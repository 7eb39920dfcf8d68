#include "gateway/api/structure_fields.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>

#include <string>
#include <utility>

#include "gateway/api/api_error.h"

namespace behemoth::gateway {
namespace {

using json = Json;
using Kind = StructureOptions::Kind;
using Read = absl::StatusOr<std::optional<StructureOptions>>;

constexpr size_t kMaxChoices = 1024;
constexpr char kAnyObject[] = R"({"type":"object"})";

StructureOptions Of(Kind kind, std::string text, const std::string& field) {
  return {.kind = kind, .text = std::move(text), .field = field};
}

// A schema, or the text of one.
Read Schema(const json& value, const std::string& field) {
  if (value.is_object()) return Of(Kind::kJsonSchema, value.dump(), field);
  if (value.is_string()) return Of(Kind::kJsonSchema, value.get<std::string>(), field);
  return InvalidField(field, "must be a JSON Schema");
}

Read Text(Kind kind, const json& value, const std::string& field) {
  if (!value.is_string()) return InvalidField(field, "must be a string");
  return Of(kind, value.get<std::string>(), field);
}

// One of these texts: a grammar of literals.
Read Choice(const json& value, const std::string& field) {
  if (!value.is_array() || value.empty() || value.size() > kMaxChoices) {
    return InvalidField(field, absl::StrCat("must be a list of 1 to ", kMaxChoices, " strings"));
  }
  std::string grammar = "root ::= ";
  for (const json& choice : value) {
    if (!choice.is_string() || choice == json("")) {
      return InvalidField(field, "must be a list of strings that are not empty");
    }
    if (grammar.back() == '"') grammar += " | ";
    absl::StrAppend(
        &grammar, "\"",
        absl::StrReplaceAll(
            choice.get<std::string>(),
            {{"\\", "\\\\"}, {"\"", "\\\""}, {"\n", "\\n"}, {"\r", "\\r"}, {"\t", "\\t"}}),
        "\"");
  }
  return Of(Kind::kGrammar, std::move(grammar), field);
}

// OpenAI's: {"type": "json_schema", "json_schema": {"name", "schema", "strict"}}. `strict` changes
// nothing: the text is held to the schema in any case.
Read ResponseFormat(const json& format) {
  const std::string field = "response_format";
  if (format.empty()) return std::nullopt;
  const auto type = format.find("type");
  if (type == format.end() || !type->is_string()) {
    return InvalidField(field + ".type", "must be a string");
  }
  if (*type == "text") return std::nullopt;
  if (*type == "json_object") return Of(Kind::kJsonSchema, kAnyObject, field);
  if (*type != "json_schema") {
    return InvalidField(field + ".type", "must be text, json_object or json_schema");
  }
  const auto named = format.find("json_schema");
  if (named == format.end() || !named->is_object()) {
    return InvalidField(field + ".json_schema", "must be an object");
  }
  const auto schema = named->find("schema");
  if (schema == named->end()) return Of(Kind::kJsonSchema, kAnyObject, field);
  return Schema(*schema, field + ".json_schema.schema");
}

// vLLM's object: one of its members says something.
Read StructuredOutputs(const json& outputs) {
  std::optional<StructureOptions> settled;
  for (const auto& [key, value] : outputs.items()) {
    const std::string field = "structured_outputs." + key.substr(0, 64);
    if (value.is_null() || value == json(false)) continue;
    Read one = key == "json"      ? Schema(value, field)
               : key == "regex"   ? Text(Kind::kRegex, value, field)
               : key == "choice"  ? Choice(value, field)
               : key == "grammar" ? Text(Kind::kGrammar, value, field)
               : key == "json_object"
                   ? Read(Of(Kind::kJsonSchema, kAnyObject, field))
                   : Read(InvalidField(
                         field, "unknown: takes json, regex, choice, grammar or json_object"));
    if (!one.ok()) return one;
    if (settled) return InvalidField("structured_outputs", "only one of its members may be given");
    settled = *std::move(one);
  }
  return settled;
}

Read ReadOne(const std::string& name, const std::string& field, const json& value) {
  if (name == "response_format") return ResponseFormat(value);
  if (name == "structured_outputs") return StructuredOutputs(value);
  if (name == "guided_json" || name == "json_schema") return Schema(value, field);
  if (name == "guided_regex") return Text(Kind::kRegex, value, field);
  if (name == "guided_choice") return Choice(value, field);
  return Text(Kind::kGrammar, value, field);  // guided_grammar, grammar
}

}  // namespace

Read ReadStructure(RequestFields& fields) {
  std::optional<StructureOptions> settled;
  for (const char* name : {"response_format", "guided_json", "guided_regex", "guided_choice",
                           "guided_grammar", "structured_outputs", "json_schema", "grammar"}) {
    const json* value = fields.Find(name);
    // What clients send that do not use a field.
    if (value == nullptr || value->empty() || *value == json("")) continue;
    Read one = ReadOne(name, fields.NameOf(name), *value);
    if (!one.ok()) return one;
    if (!*one) continue;
    if (settled) {
      return InvalidField(fields.NameOf(name),
                          absl::StrCat("cannot be given together with ", settled->field));
    }
    settled = *std::move(one);
  }
  return settled;
}

}  // namespace behemoth::gateway
