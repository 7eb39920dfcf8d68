#include "worker/structure/schema.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "worker/structure/expansion.h"
#include "worker/structure/format_pattern.h"
#include "worker/structure/number_text.h"
#include "worker/structure/regex_text.h"

namespace behemoth::worker {
namespace {

using json = nlohmann::ordered_json;
using Keywords = std::initializer_list<std::string_view>;

constexpr int kMaxDepth = 64;
constexpr int64_t kMaxCount = 1 << 20;
// One character of a JSON string: as it is, or escaped.
constexpr absl::string_view kCharacter = R"(([^\x00-\x1f\x22\x5c\x7f]|\\[\x22\x5c/bfnrt]))";

// Every keyword of the standard (2020-12, and of the drafts before) that restricts values.
constexpr std::string_view kRestricting[] = {"$ref",
                                             "$dynamicRef",
                                             "$recursiveRef",
                                             "type",
                                             "enum",
                                             "const",
                                             "anyOf",
                                             "oneOf",
                                             "allOf",
                                             "not",
                                             "if",
                                             "then",
                                             "else",
                                             "dependentSchemas",
                                             "dependentRequired",
                                             "dependencies",
                                             "properties",
                                             "patternProperties",
                                             "additionalProperties",
                                             "unevaluatedProperties",
                                             "propertyNames",
                                             "required",
                                             "minProperties",
                                             "maxProperties",
                                             "items",
                                             "prefixItems",
                                             "additionalItems",
                                             "unevaluatedItems",
                                             "contains",
                                             "minContains",
                                             "maxContains",
                                             "minItems",
                                             "maxItems",
                                             "uniqueItems",
                                             "pattern",
                                             "minLength",
                                             "maxLength",
                                             "format",
                                             "minimum",
                                             "maximum",
                                             "exclusiveMinimum",
                                             "exclusiveMaximum",
                                             "multipleOf",
                                             "divisibleBy",
                                             "extends",
                                             "disallow"};

bool IsIn(std::string_view name, std::span<const std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

absl::Status Bad(const std::string& path, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("at ", path.substr(0, 256), ": ", what));
}

bool HasType(const json& value, std::string_view type) {
  if (type == "integer") return value.is_number_integer();
  if (type == "number") return value.is_number();
  return (type == "string" && value.is_string()) || (type == "boolean" && value.is_boolean()) ||
         (type == "null" && value.is_null()) || (type == "array" && value.is_array()) ||
         (type == "object" && value.is_object());
}

class Converter {
 public:
  // `prefix` of numbers' names stands nowhere in the schema.
  explicit Converter(std::string prefix) : prefix_(std::move(prefix)) {}

  absl::StatusOr<json> Convert(const json& schema, const std::string& path, int depth) {
    if (depth > kMaxDepth) return Bad(path, "nested too deep");
    ++size.atoms;
    if (schema.is_boolean() && schema.get<bool>()) return json::object();
    if (!schema.is_object()) return Bad(path, "must be a schema that something fits");
    // It would be what the references below it are relative to.
    if (depth > 0 && schema.contains("$id"))
      return Bad(path, "\"$id\" is supported at the top only");
    auto out = Restriction(schema, path, depth);
    if (!out.ok()) return out;
    for (const char* name : {"$defs", "definitions"}) {
      const auto defs = schema.find(name);
      if (defs == schema.end()) continue;
      if (!defs->is_object()) return Bad(path, "definitions must be an object");
      for (const auto& [key, definition] : defs->items()) {
        auto converted = Convert(definition, absl::StrCat(path, "/", name, "/", key), depth + 1);
        if (!converted.ok()) return converted;
        (*out)[name][key] = *std::move(converted);
      }
    }
    return out;
  }

  // Of what was converted last; xgrammar takes the repetitions of items as they are.
  Expansion size;
  std::vector<NumberRule> numbers;

 private:
  void Add(const Expansion& pattern) {
    size.atoms += pattern.atoms;
    size.operators += pattern.operators;
    size.depth = std::max(size.depth, pattern.depth);
  }

  // Refuses every restricting keyword but `known`.
  absl::Status Only(const json& schema, const std::string& path, Keywords known) {
    for (const auto& [key, value] : schema.items()) {
      const bool restricts = IsIn(key, kRestricting) && !(key == "uniqueItems" && value == false);
      if (restricts && !IsIn(key, std::span(known.begin(), known.size()))) {
        return Bad(path, absl::StrCat("the keyword \"", key, "\" is not supported here"));
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<json> Restriction(const json& schema, const std::string& path, int depth) {
    if (schema.contains("$ref")) return Reference(schema, path);
    if (schema.contains("enum") || schema.contains("const")) return Values(schema, path);
    if (schema.contains("anyOf")) return AnyOf(schema, path, depth, "anyOf");
    if (schema.contains("oneOf")) return OneOf(schema, path, depth);
    if (schema.contains("allOf")) {
      if (absl::Status bad = Only(schema, path, {"allOf"}); !bad.ok()) return bad;
      const json& all = schema["allOf"];
      if (!all.is_array() || all.size() != 1) return Bad(path, "allOf must have one schema");
      return Convert(all[0], path + "/allOf/0", depth + 1);
    }
    const std::string implied = ImpliedType(schema);
    if (!schema.contains("type") && implied.empty()) {
      if (absl::Status bad = Only(schema, path, {}); !bad.ok()) return bad;
      return json::object();
    }
    const json type = schema.contains("type") ? schema["type"] : json(implied);
    if (type.is_string()) return Typed(schema, type.get<std::string>(), path, depth);
    if (!type.is_array() || type.empty()) return Bad(path, "type must be a name or names");
    json any = json::array();
    for (const json& name : type) {
      if (!name.is_string()) return Bad(path, "type must be a name or names");
      auto one =
          Typed(OfType(schema, name.get<std::string>()), name.get<std::string>(), path, depth);
      if (!one.ok()) return one;
      any.push_back(*std::move(one));
    }
    return json{{"anyOf", any}};
  }

  static constexpr std::string_view kString[] = {"pattern", "minLength", "maxLength", "format"};
  static constexpr std::string_view kNumber[] = {"minimum", "maximum", "exclusiveMinimum",
                                                 "exclusiveMaximum", "multipleOf"};
  static constexpr std::string_view kArray[] = {"items",    "prefixItems", "minItems",
                                                "maxItems", "uniqueItems", "contains"};
  static constexpr std::string_view kObject[] = {
      "properties",    "patternProperties", "additionalProperties", "required",
      "minProperties", "maxProperties",     "propertyNames"};

  static std::string ImpliedType(const json& schema) {
    for (const auto& [key, value] : schema.items()) {
      if (IsIn(key, kObject)) return "object";
      if (IsIn(key, kArray)) return "array";
      if (IsIn(key, kString)) return "string";
      if (IsIn(key, kNumber)) return "number";
    }
    return "";
  }

  // Of one of several types: without the keywords that are about the others.
  static json OfType(const json& schema, std::string_view type) {
    json out = json::object();
    for (const auto& [key, value] : schema.items()) {
      const bool other = (IsIn(key, kString) && type != "string") ||
                         (IsIn(key, kNumber) && type != "number" && type != "integer") ||
                         (IsIn(key, kArray) && type != "array") ||
                         (IsIn(key, kObject) && type != "object");
      if (!other) out[key] = value;
    }
    return out;
  }

  absl::StatusOr<json> Reference(const json& schema, const std::string& path) {
    if (absl::Status bad = Only(schema, path, {"$ref"}); !bad.ok()) return bad;
    const json& ref = schema["$ref"];
    if (!ref.is_string()) return Bad(path, "$ref must be a string");
    const std::string& uri = ref.get_ref<const std::string&>();
    if ((uri != "#" && !uri.starts_with("#/")) || uri.find_first_of("~%") != std::string::npos) {
      return Bad(path, "$ref must point into this schema, without escapes");
    }
    return json{{"$ref", uri}};
  }

  absl::StatusOr<json> Values(const json& schema, const std::string& path) {
    if (absl::Status bad = Only(schema, path, {"enum", "const", "type"}); !bad.ok()) return bad;
    json values = json::array();
    const json all = schema.contains("const") ? json::array({schema["const"]}) : schema["enum"];
    if (!all.is_array()) return Bad(path, "enum must be a list");
    const json type = schema.contains("type") ? schema["type"] : json(nullptr);
    for (const json& value : all) {
      bool fits = type.is_null() || (type.is_string() && HasType(value, type.get<std::string>()));
      if (type.is_array()) {
        for (const json& name : type)
          fits |= name.is_string() && HasType(value, name.get<std::string>());
      }
      if (schema.contains("const") && schema.contains("enum")) {
        const json& listed = schema["enum"];
        fits = fits && std::find(listed.begin(), listed.end(), value) != listed.end();
      }
      if (fits) values.push_back(value);
    }
    if (values.empty()) return Bad(path, "no value fits");
    size.atoms += values.dump().size();
    return json{{"enum", values}};
  }

  absl::StatusOr<json> AnyOf(const json& schema, const std::string& path, int depth,
                             const char* name) {
    if (absl::Status bad = Only(schema, path, {name}); !bad.ok()) return bad;
    const json& cases = schema[name];
    if (!cases.is_array() || cases.empty()) return Bad(path, "must be a list of schemas");
    json any = json::array();
    for (size_t i = 0; i < cases.size(); ++i) {
      auto one = Convert(cases[i], absl::StrCat(path, "/", name, "/", i), depth + 1);
      if (!one.ok()) return one;
      any.push_back(*std::move(one));
    }
    return json{{"anyOf", any}};
  }

  // Exactly one: as any of them, where no value can fit two.
  absl::StatusOr<json> OneOf(const json& schema, const std::string& path, int depth) {
    const json& cases = schema["oneOf"];
    for (size_t i = 0; cases.is_array() && i < cases.size(); ++i) {
      for (size_t j = 0; j < i; ++j) {
        if (AreDisjoint(cases[i], cases[j])) continue;
        return Bad(path,
                   "the cases of oneOf must differ in type, or in a required const or enum "
                   "property");
      }
    }
    return AnyOf(schema, path, depth, "oneOf");
  }

  static std::vector<json> ListedValues(const json& schema) {
    if (!schema.is_object()) return {};
    if (schema.contains("const")) return {schema["const"]};
    if (schema.contains("enum") && schema["enum"].is_array()) {
      return schema["enum"].get<std::vector<json>>();
    }
    return {};
  }

  static bool AreDisjoint(const json& a, const json& b) {
    if (!a.is_object() || !b.is_object()) return false;
    const auto x = ListedValues(a), y = ListedValues(b);
    if (!x.empty() && !y.empty()) {
      return std::none_of(x.begin(), x.end(), [&](const json& value) {
        return std::find(y.begin(), y.end(), value) != y.end();
      });
    }
    const json type_a = a.value("type", json()), type_b = b.value("type", json());
    if (!type_a.is_string() || !type_b.is_string()) return false;
    const auto is_number = [](const json& type) { return type == "integer" || type == "number"; };
    if (type_a != type_b) return !is_number(type_a) || !is_number(type_b);
    if (type_a != "object") return false;
    const auto needs = [](const json& schema, const std::string& key) {
      const auto required = schema.find("required");
      return required != schema.end() && required->is_array() &&
             std::find(required->begin(), required->end(), json(key)) != required->end();
    };
    const json props_a = a.value("properties", json::object());
    const json props_b = b.value("properties", json::object());
    if (!props_a.is_object() || !props_b.is_object()) return false;
    for (const auto& [key, value] : props_a.items()) {
      if (!props_b.contains(key) || !needs(a, key) || !needs(b, key)) continue;
      if (!ListedValues(value).empty() && !ListedValues(props_b[key]).empty() &&
          AreDisjoint(value, props_b[key])) {
        return true;
      }
    }
    return false;
  }

  absl::StatusOr<json> Typed(const json& schema, const std::string& type, const std::string& path,
                             int depth) {
    if (type == "string") return String(schema, path);
    if (type == "integer" || type == "number") return Number(schema, type, path);
    if (type == "array") return Array(schema, path, depth);
    if (type == "object") return Object(schema, path, depth);
    if (type != "boolean" && type != "null") return Bad(path, "unknown type");
    if (absl::Status bad = Only(schema, path, {"type"}); !bad.ok()) return bad;
    return json{{"type", type}};
  }

  // -1 = absent.
  static absl::StatusOr<int64_t> CountOf(const json& schema, const char* name,
                                         const std::string& path) {
    const auto found = schema.find(name);
    if (found == schema.end()) return -1;
    if (!found->is_number_unsigned() || found->get<uint64_t>() > uint64_t{kMaxCount}) {
      return Bad(path, absl::StrCat(name, " must be an integer of 0 to ", kMaxCount));
    }
    return found->get<int64_t>();
  }

  absl::StatusOr<json> String(const json& schema, const std::string& path) {
    if (absl::Status bad =
            Only(schema, path, {"type", "pattern", "minLength", "maxLength", "format"});
        !bad.ok()) {
      return bad;
    }
    const auto least = CountOf(schema, "minLength", path),
               most = CountOf(schema, "maxLength", path);
    if (!least.ok()) return least.status();
    if (!most.ok()) return most.status();
    const bool bounded = *least > 0 || *most >= 0;
    if (schema.contains("pattern") + schema.contains("format") + bounded > 1) {
      return Bad(path, "pattern, format and a length do not go together");
    }
    std::string pattern;
    if (bounded) {
      if (*most >= 0 && *least > *most) return Bad(path, "minLength is above maxLength");
      pattern = absl::StrCat(kCharacter, "{", std::max<int64_t>(*least, 0), ",",
                             *most < 0 ? "" : absl::StrCat(*most), "}");
    } else if (schema.contains("format")) {
      if (!schema["format"].is_string()) return Bad(path, "format must be a string");
      pattern = FormatPattern(schema["format"].get<std::string>());
      if (pattern.empty()) return Bad(path, "this \"format\" is not supported");
    } else if (schema.contains("pattern")) {
      if (!schema["pattern"].is_string()) return Bad(path, "pattern must be a string");
      auto safe = InsideJsonString(schema["pattern"].get<std::string>());
      if (!safe.ok()) return Bad(path + "/pattern", safe.status().message());
      pattern = *std::move(safe);
    } else {
      return json{{"type", "string"}};
    }
    Add(Expand(pattern, PatternSyntax::kRegex));
    return json{{"type", "string"}, {"pattern", pattern}};
  }

  absl::StatusOr<json> Number(const json& schema, const std::string& type,
                              const std::string& path) {
    NumberRules rules{.integer = type == "integer"};
    const std::pair<const char*, std::optional<Decimal>*> bounds[] = {
        {"minimum", &rules.minimum},
        {"maximum", &rules.maximum},
        {"exclusiveMinimum", &rules.exclusive_minimum},
        {"exclusiveMaximum", &rules.exclusive_maximum},
        {"multipleOf", &rules.multiple_of}};
    if (absl::Status bad = Only(
            schema, path,
            {"type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"});
        !bad.ok()) {
      return bad;
    }
    bool bounded = false;
    for (const auto& [name, bound] : bounds) {
      const auto found = schema.find(name);
      if (found == schema.end()) continue;
      if (!found->is_number()) return Bad(path, absl::StrCat(name, " must be a number"));
      *bound = DecimalOf(found->get<double>());
      bounded = true;
    }
    if (!bounded) {
      size.atoms += 64;
      return json{{"type", type}};
    }
    auto text = NumberText(rules);
    if (!text.ok()) return Bad(path, text.status().message());
    return json{{"const", NameOf(*std::move(text))}};
  }

  // Of the rule that writes `text`, in whose place the constant stands.
  std::string NameOf(std::string text) {
    const auto known = std::find_if(numbers.begin(), numbers.end(),
                                    [&](const NumberRule& rule) { return rule.text == text; });
    if (known != numbers.end()) return known->name;
    Add(Expand(text, PatternSyntax::kGrammar));
    numbers.push_back({absl::StrCat(prefix_, numbers.size()), std::move(text)});
    return numbers.back().name;
  }

  absl::StatusOr<json> Array(const json& schema, const std::string& path, int depth) {
    if (absl::Status bad =
            Only(schema, path, {"type", "items", "prefixItems", "minItems", "maxItems"});
        !bad.ok()) {
      return bad;
    }
    const auto least = CountOf(schema, "minItems", path), most = CountOf(schema, "maxItems", path);
    if (!least.ok()) return least.status();
    if (!most.ok()) return most.status();
    if (*most >= 0 && *least > *most) return Bad(path, "minItems is above maxItems");
    json out{{"type", "array"}};
    if (schema.contains("prefixItems")) {
      const json& prefix = schema["prefixItems"];
      if (!prefix.is_array()) return Bad(path, "prefixItems must be a list");
      // Every one of them is produced.
      if (*most >= 0 && static_cast<size_t>(*most) < prefix.size()) {
        return Bad(path, "maxItems is below the number of prefixItems");
      }
      for (size_t i = 0; i < prefix.size(); ++i) {
        auto item = Convert(prefix[i], absl::StrCat(path, "/prefixItems/", i), depth + 1);
        if (!item.ok()) return item;
        out["prefixItems"].push_back(*std::move(item));
      }
    }
    const bool none = schema.contains("items") && schema["items"] == json(false);
    if (none || (schema.contains("prefixItems") && !schema.contains("items") &&
                 *least <= static_cast<int64_t>(schema["prefixItems"].size()))) {
      out["items"] = false;
    } else {
      const uint64_t before = std::exchange(size.atoms, 0);
      auto items = Convert(schema.contains("items") ? schema["items"] : json(true), path + "/items",
                           depth + 1);
      if (!items.ok()) return items;
      const int64_t times = std::max<int64_t>({*least, *most, 1});
      size.atoms = before + size.atoms * static_cast<uint64_t>(times);
      out["items"] = *std::move(items);
    }
    if (*least >= 0) out["minItems"] = *least;
    if (*most >= 0) out["maxItems"] = *most;
    return out;
  }

  absl::StatusOr<json> Object(const json& schema, const std::string& path, int depth) {
    if (absl::Status bad = Only(schema, path,
                                {"type", "properties", "patternProperties", "additionalProperties",
                                 "required", "minProperties", "maxProperties"});
        !bad.ok()) {
      return bad;
    }
    const auto least = CountOf(schema, "minProperties", path);
    const auto most = CountOf(schema, "maxProperties", path);
    if (!least.ok()) return least.status();
    if (!most.ok()) return most.status();
    json out{{"type", "object"}};
    const json properties = schema.value("properties", json::object());
    if (!properties.is_object()) return Bad(path, "properties must be an object");
    if (absl::Status bad = Required(schema, properties, path, out); !bad.ok()) return bad;
    if (properties.empty()) {
      // Names may come twice, and count once.
      if (*least > 1) return Bad(path, "minProperties needs properties");
      if (*least == 1) out["minProperties"] = 1;
      if (*most >= 0) out["maxProperties"] = *most;
      return FreeNames(schema, path, depth, std::move(out));
    }
    if (schema.contains("patternProperties")) {
      return Bad(path, "patternProperties beside properties is not supported");
    }
    for (const auto& [key, value] : properties.items()) {
      if (std::any_of(key.begin(), key.end(), [](char c) {
            return static_cast<unsigned char>(c) < 0x20 || c == '"' || c == '\\';
          })) {
        return Bad(path,
                   "a property's name with a quote, a backslash or a control character is "
                   "not supported");
      }
      auto one = Convert(value, absl::StrCat(path, "/properties/", key), depth + 1);
      if (!one.ok()) return one;
      out["properties"][key] = *std::move(one);
      size.atoms += key.size();
    }
    // Others are never produced: one of a declared name would be held to no schema.
    out["additionalProperties"] = false;
    if (*least > static_cast<int64_t>(properties.size())) {
      return Bad(path, "minProperties is above the number of properties");
    }
    if (*least >= 0) out["minProperties"] = *least;
    if (*most >= 0) out["maxProperties"] = *most;
    return out;
  }

  static absl::Status Required(const json& schema, const json& properties, const std::string& path,
                               json& out) {
    const auto required = schema.find("required");
    if (required == schema.end()) return absl::OkStatus();
    if (!required->is_array()) return Bad(path, "required must be a list");
    for (const json& name : *required) {
      if (!name.is_string() || !properties.contains(name.get<std::string>())) {
        return Bad(path, "required must name properties");
      }
    }
    if (!required->empty()) out["required"] = *required;
    return absl::OkStatus();
  }

  absl::StatusOr<json> FreeNames(const json& schema, const std::string& path, int depth, json out) {
    if (schema.contains("patternProperties")) {
      const json& patterns = schema["patternProperties"];
      if (!patterns.is_object() || patterns.size() != 1) {
        return Bad(path, "patternProperties must have one pattern");
      }
      const std::string key = patterns.begin().key();
      auto safe = InsideJsonString(key);
      if (!safe.ok()) return Bad(path + "/patternProperties", safe.status().message());
      auto value = Convert(patterns.begin().value(), path + "/patternProperties", depth + 1);
      if (!value.ok()) return value;
      Add(Expand(*safe, PatternSyntax::kRegex));
      out["patternProperties"][*safe] = *std::move(value);
      return out;
    }
    const json any = schema.value("additionalProperties", json(true));
    if (any == json(false)) {
      out["additionalProperties"] = false;
      return out;
    }
    auto value = Convert(any, path + "/additionalProperties", depth + 1);
    if (!value.ok()) return value;
    out["additionalProperties"] = *std::move(value);
    return out;
  }

  const std::string prefix_;
};

// Before it is parsed: the parser's value is copied recursively.
bool IsTooDeep(std::string_view text) {
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\\') ++i;
    if (c == '"') quoted = !quoted;
    if (quoted) continue;
    if (c == '{' || c == '[') ++depth;
    if (c == '}' || c == ']') --depth;
    if (depth > 4 * kMaxDepth) return true;
  }
  return false;
}

}  // namespace

absl::StatusOr<CompilableSchema> ToCompilable(std::string_view schema) {
  if (IsTooDeep(schema)) return absl::InvalidArgumentError("nested too deep");
  const json parsed = json::parse(schema, nullptr, /*allow_exceptions=*/false);
  if (parsed.is_discarded()) return absl::InvalidArgumentError("is not JSON");
  std::string prefix = "number_text_";
  const std::string written = parsed.dump();
  while (written.find(prefix) != std::string::npos) prefix += "_";
  Converter converter(std::move(prefix));
  auto converted = converter.Convert(parsed, "#", 0);
  if (!converted.ok()) return converted.status();
  return CompilableSchema{.json = converted->dump(-1, ' ', false, json::error_handler_t::replace),
                          .numbers = std::move(converter.numbers),
                          .size = converter.size};
}

}  // namespace behemoth::worker
