#include "gateway/api/openapi.h"

#include <absl/strings/ascii.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "gateway/api/field_table.h"
#include "gateway/api/openapi_parts_json.h"

namespace behemoth::gateway {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kTwo63 = 9223372036854775808.0;
// A longer text or list is held by the body's limit, which is the operator's.
constexpr double kOwnLimit = 1 << 20;

struct Body {
  std::string_view schema;
  uint8_t route;
};
constexpr Body kBodies[] = {{"ChatRequest", kChatRoute},
                            {"CompletionRequest", kCompletionRoute},
                            {"TokenizeRequest", kTokenizeRoute},
                            {"DetokenizeRequest", kDetokenizeRoute}};

std::string Text(std::string_view text) { return std::string(text); }

std::string_view NameOf(Support support) {
  switch (support) {
    case Support::kWorks:
      return "works";
    case Support::kNotYet:
      return "not_yet";
    case Support::kWarned:
      return "warned";
    case Support::kNoEffect:
      break;
  }
  return "no_effect";
}

// A bound of the table: whole numbers as JSON integers, 2^63 as the largest that travels.
Json Bound(double value) {
  if (value >= kTwo63) return std::numeric_limits<int64_t>::max();
  if (value != static_cast<double>(static_cast<int64_t>(value))) return value;
  return static_cast<int64_t>(value);
}

Json StringOrList(const FieldSpec& field) {
  const Json text = {{"type", "string"}, {"minLength", 1}, {"maxLength", Bound(field.max)}};
  const Json list = {{"type", "array"}, {"maxItems", 64}, {"items", text}};
  const Json nothing = {{"enum", {nullptr, ""}}};
  return {{"anyOf", {nothing, text, list}}, {"x-max-bytes", Bound(field.max)}};
}

Json IdList(const FieldSpec& field) {
  const Json id = {{"type", "integer"}, {"minimum", 0}, {"maximum", 4294967295}};
  Json schema = {{"type", {"array", "null"}}, {"items", id}};
  if (field.max < kOwnLimit) schema["maxItems"] = Bound(field.max);
  return schema;
}

Json StringSchema(const FieldSpec& field) {
  Json schema = {{"type", {"string", "null"}}};
  if (field.max < kOwnLimit) {
    schema["maxLength"] = Bound(field.max);
    schema["x-max-bytes"] = Bound(field.max);
  }
  return schema;
}

// null is absent, whatever the kind.
Json KindSchema(const FieldSpec& field) {
  switch (field.kind) {
    case FieldKind::kBool:
      return {{"type", {"boolean", "null"}}};
    case FieldKind::kInteger:
    case FieldKind::kNumber: {
      Json schema = {{"type", {field.kind == FieldKind::kInteger ? "integer" : "number", "null"}}};
      schema[field.open_min ? "exclusiveMinimum" : "minimum"] = Bound(field.min);
      // Numbers travel as float: what is over 0 must still be over 0 there.
      if (field.open_min && field.min == 0) {
        schema["minimum"] = static_cast<double>(std::numeric_limits<float>::denorm_min());
      }
      schema["maximum"] = Bound(field.max);
      return schema;
    }
    case FieldKind::kString:
      return StringSchema(field);
    case FieldKind::kStringOrList:
      return StringOrList(field);
    case FieldKind::kIdList:
      return IdList(field);
    case FieldKind::kList:
      return {{"type", {"array", "null"}}};
    case FieldKind::kObject:
      return {{"type", {"object", "null"}}};
    case FieldKind::kAny:
      break;
  }
  return Json::object();
}

// The values that a field takes while it does not work yet.
Json NeutralValues(const FieldSpec& field) {
  Json values = Json::array({nullptr});
  const bool any = field.kind == FieldKind::kAny;
  if (any || field.kind == FieldKind::kBool) values.push_back(false);
  if (any || field.kind == FieldKind::kString) values.push_back("");
  if (any || field.kind == FieldKind::kList) values.push_back(Json::array());
  if (any || field.kind == FieldKind::kObject) values.push_back(Json::object());
  if (!field.neutral.empty()) {
    for (const Json& value : Json::parse(field.neutral)) values.push_back(value);
  }
  return values;
}

// What the table cannot say of a field: "prompt" of every body, or "TokenizeRequest.prompt" of one.
const Json* StructureOf(const FieldSpec& field, const Body& body, const Json& parts) {
  const std::string name(field.alias_of.empty() ? field.name : field.alias_of);
  for (const std::string& key : {absl::StrCat(Text(body.schema), ".", name), name}) {
    if (parts["fields"].contains(key)) return &parts["fields"][key];
  }
  return nullptr;
}

Json FieldSchema(const FieldSpec& field, const Body& body, const Json& parts) {
  const Json* structure =
      field.support == Support::kWorks ? StructureOf(field, body, parts) : nullptr;
  Json schema = structure != nullptr ? *structure : KindSchema(field);
  if (field.support == Support::kNotYet) schema["enum"] = NeutralValues(field);
  if (!field.default_value.empty()) schema["default"] = Json::parse(field.default_value);
  schema["x-support"] = NameOf(field.support);
  if (!field.alias_of.empty()) schema["x-alias-of"] = field.alias_of;
  for (const FieldSpec& other : FieldTable()) {
    if (other.alias_of != field.name || (other.routes & body.route) == 0) continue;
    schema["x-aliases"].push_back(other.name);
  }
  return schema;
}

// Unknown fields are taken and named in `warnings`: additionalProperties stays open.
Json BodySchema(const Body& body, const Json& parts) {
  Json schema = {{"type", "object"}};
  schema.update(parts["required"][Text(body.schema)]);
  Json& properties = schema["properties"] = Json::object();
  for (const FieldSpec& field : FieldTable()) {
    if ((field.routes & body.route) == 0) continue;
    properties[Text(field.name)] = FieldSchema(field, body, parts);
  }
  return schema;
}

Json Reference(std::string_view kind, const Json& name) {
  return {{"$ref", absl::StrCat("#/components/", Text(kind), "/", name.get<std::string>())}};
}

Json JsonContent(const Json& schema_name) {
  return {{"application/json", {{"schema", Reference("schemas", schema_name)}}}};
}

Json Success(const Json& words) {
  Json content = Json::object();
  if (words.contains("reply")) content = JsonContent(words["reply"]);
  if (words.contains("media")) {
    content[words["media"].get<std::string>()] = {{"schema", {{"type", "string"}}}};
  }
  if (words.contains("event")) {
    content["text/event-stream"] = {
        // Without a type: tools disagree whether a schema here is the stream's or an event's.
        {"schema",
         {{"description",
           "With stream: true. Lines `data: ` with a chunk each, then `data: [DONE]`; comment "
           "lines while nothing else is sent (queue position, prefill progress). A failure after "
           "the first byte is a chunk with the member `error` and the end without [DONE]."}}},
        {"x-event-schema", Reference("schemas", words["event"])}};
  }
  return {{"description", "Done"}, {"content", content}};
}

Json Responses(const DescribedRoute& route, const Json& words) {
  std::vector<const char*> codes = {"400", "408", "431"};
  if (!route.is_public) codes.push_back("401");
  if (words.contains("id")) codes.push_back("404");
  if (words.contains("body")) {
    for (const char* code : {"404", "413", "415", "429", "500", "503", "504"})
      codes.push_back(code);
  }
  Json responses = {{"200", Success(words)}};
  for (const char* code : codes) responses[code] = Reference("responses", code);
  if (words.contains("unready")) {
    responses["503"] = {{"description", "Not ready"}, {"content", JsonContent(words["unready"])}};
  }
  return responses;
}

// post_v1_chat_completions
std::string OperationId(const DescribedRoute& route) {
  std::string id = absl::AsciiStrToLower(Text(route.method));
  for (const char c : route.pattern) {
    if (absl::ascii_isalnum(c)) id += c;
    if (!absl::ascii_isalnum(c) && id.back() != '_') id += '_';
  }
  return id;
}

Json Operation(const DescribedRoute& route, const Json& words) {
  Json operation = {{"operationId", OperationId(route)},
                    {"summary", words.value("summary", Text(route.name))}};
  if (route.is_public) operation["security"] = Json::array();
  if (words.contains("id")) {
    operation["parameters"] = Json::array({{{"name", "id"},
                                            {"in", "path"},
                                            {"required", true},
                                            {"description", words["id"]},
                                            {"schema", {{"type", "string"}, {"minLength", 1}}}}});
  }
  if (words.contains("body")) {
    operation["requestBody"] = {{"required", true}, {"content", JsonContent(words["body"])}};
  }
  operation["responses"] = Responses(route, words);
  return operation;
}

Json Components(const Json& parts) {
  Json components;
  Json& schemas = components["schemas"] = parts["schemas"];
  for (const Body& body : kBodies) schemas[Text(body.schema)] = BodySchema(body, parts);
  for (const auto& [code, description] : parts["responses"].items()) {
    Json& response = components["responses"][code];
    response = {{"description", description}, {"content", JsonContent("Error")}};
    if (code == "429" || code == "503") {
      response["headers"]["Retry-After"] = {{"schema", {{"type", "integer"}}}};
    }
  }
  components["securitySchemes"] = {
      {"bearer", {{"type", "http"}, {"scheme", "bearer"}}},
      {"x-api-key", {{"type", "apiKey"}, {"in", "header"}, {"name", "X-Api-Key"}}}};
  return components;
}

}  // namespace

std::string OpenApiJson(std::span<const DescribedRoute> routes, std::string_view version) {
  const Json parts = Json::parse(kOpenApiParts);
  Json document = {
      {"openapi", "3.1.0"},
      {"info", {{"title", "Behemoth Serve"}, {"version", Text(version)}}},
      {"paths", Json::object()},
      // {}: a gateway without keys asks for none.
      {"security", {{{"bearer", Json::array()}}, {{"x-api-key", Json::array()}}, Json::object()}}};
  for (const DescribedRoute& route : routes) {
    const auto words = parts["routes"].find(Text(route.name));
    const std::string path = absl::StrReplaceAll(Text(route.pattern), {{"*", "{id}"}});
    document["paths"][path][absl::AsciiStrToLower(Text(route.method))] =
        Operation(route, words == parts["routes"].end() ? Json::object() : *words);
  }
  document["components"] = Components(parts);
  return document.dump();
}

}  // namespace behemoth::gateway
