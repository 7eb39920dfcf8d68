#include "gateway/api/tool_fields.h"

#include <absl/strings/ascii.h>
#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>

#include <algorithm>
#include <cstdint>
#include <set>
#include <utility>

#include "gateway/api/api_error.h"

namespace behemoth::gateway {
namespace {

constexpr size_t kMaxTools = 1024;
constexpr size_t kMaxCalls = 1024;  // of one message
constexpr size_t kMaxNameBytes = 64;
constexpr size_t kMaxIdBytes = 256;
constexpr size_t kModelIdBytes = 9;

bool IsModelId(std::string_view id) {
  return id.size() == kModelIdBytes && std::all_of(id.begin(), id.end(), absl::ascii_isalnum);
}

// The same for the same id: FNV-1a in base 62. 62^9 = 1.4e16: no two of a conversation meet.
std::string ModelIdOf(std::string_view id) {
  constexpr std::string_view kDigits =
      "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : id) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  std::string out;
  for (; out.size() < kModelIdBytes; hash /= kDigits.size()) out += kDigits[hash % kDigits.size()];
  return out;
}

const Json* FindMember(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

absl::Status CheckType(const std::string& at, const Json& object, bool required) {
  const Json* type = FindMember(object, "type");
  if (type == nullptr && !required) return absl::OkStatus();
  if (type != nullptr && *type == "function") return absl::OkStatus();
  return InvalidField(at + ".type", "must be \"function\"");
}

// [a-zA-Z0-9_-]{1,64}, as OpenAI and mistral-common have it.
absl::StatusOr<std::string> ReadName(const std::string& at, const Json& function) {
  const Json* name = FindMember(function, "name");
  if (name == nullptr || !name->is_string()) return InvalidField(at + ".name", "must be a string");
  const auto& text = name->get_ref<const std::string&>();
  const bool plain = !text.empty() && text.size() <= kMaxNameBytes &&
                     std::all_of(text.begin(), text.end(), [](char c) {
                       return absl::ascii_isalnum(c) || c == '_' || c == '-';
                     });
  if (!plain) return InvalidField(at + ".name", "must be 1 to 64 of [a-zA-Z0-9_-]");
  return text;
}

absl::StatusOr<std::string> ReadTool(const std::string& at, const Json& tool,
                                     RequestFields& fields) {
  if (!tool.is_object()) return InvalidField(at, "must be an object");
  if (absl::Status bad = CheckType(at, tool, /*required=*/true); !bad.ok()) return bad;
  const Json* function = FindMember(tool, "function");
  const std::string name_at = at + ".function";
  if (function == nullptr || !function->is_object()) {
    return InvalidField(name_at, "must be an object");
  }
  auto name = ReadName(name_at, *function);
  if (!name.ok()) return name;
  const Json* description = FindMember(*function, "description");
  if (description != nullptr && !description->is_string()) {
    return InvalidField(name_at + ".description", "must be a string");
  }
  const Json* parameters = FindMember(*function, "parameters");
  if (parameters != nullptr && !parameters->is_object()) {
    return InvalidField(name_at + ".parameters", "must be a JSON Schema");
  }
  const Json* strict = FindMember(*function, "strict");
  if (strict != nullptr && !strict->is_boolean()) {
    return InvalidField(name_at + ".strict", "must be true or false");
  }
  WarnOfOthers(at, tool, {"type", "function"}, fields);
  WarnOfOthers(name_at, *function, {"name", "description", "parameters", "strict"}, fields);
  return name;
}

// References into the function's own schema, which is to stand at `root` of a larger one.
void MoveReferences(const std::string& root, Json& schema) {
  if (!schema.is_structured()) return;
  for (auto& [key, value] : schema.items()) {
    if (key == "$ref" && schema.is_object() && value.is_string()) {
      const auto& uri = value.get_ref<const std::string&>();
      if (uri == "#" || absl::StartsWith(uri, "#/")) value = absl::StrCat(root, uri.substr(1));
    } else {
      MoveReferences(root, value);
    }
  }
}

// A function without parameters takes none, as OpenAI reads it.
absl::StatusOr<Json> ArgumentsOf(const std::string& at, const Json& function) {
  const Json* parameters = FindMember(function, "parameters");
  Json schema = parameters == nullptr ? Json::object() : *parameters;
  if (!schema.contains("type")) schema["type"] = "object";
  if (schema["type"] != "object") {
    return InvalidField(at + ".parameters", "must be a schema of an object, type: \"object\"");
  }
  const Json* properties = FindMember(schema, "properties");
  const bool declares = (properties != nullptr && !properties->empty()) ||
                        schema.contains("patternProperties") || schema.contains("$ref");
  if (!declares && !schema.contains("additionalProperties")) {
    schema["additionalProperties"] = false;
  }
  return schema;
}

// What a list of calls must be.
struct CallRules {
  std::string only;     // the function's name; "" = any
  bool many = true;     // more than one call
  bool forced = false;  // else a function's parameters hold only if it is `strict`
};

// The list of calls as a schema.
absl::StatusOr<std::string> SchemaOfCalls(const Json& tools, const CallRules& rules) {
  Json schema = {{"$defs", Json::object()}, {"type", "array"}, {"minItems", 1}};
  if (!rules.many) schema["maxItems"] = 1;
  Json calls = Json::array();
  for (size_t i = 0; i < tools.size(); ++i) {
    const Json& function = tools[i]["function"];
    const Json* strict = FindMember(function, "strict");
    const bool enforced = rules.forced || (strict != nullptr && *strict == true);
    if (!rules.only.empty() && function["name"] != rules.only) continue;
    auto arguments = ArgumentsOf(absl::StrCat("tools[", i, "].function"), function);
    if (!arguments.ok()) return arguments.status();
    const std::string key = absl::StrCat("arguments_", i);
    const std::string root = "#/$defs/" + key;
    MoveReferences(root, *arguments);
    schema["$defs"][key] = enforced ? *std::move(arguments) : Json{{"type", "object"}};
    calls.push_back(
        {{"type", "object"},
         {"properties", {{"name", {{"const", function["name"]}}}, {"arguments", {{"$ref", root}}}}},
         {"required", {"name", "arguments"}}});
  }
  schema["items"] = {{"anyOf", std::move(calls)}};
  return schema.dump();
}

struct Choice {
  ToolCalls calls = ToolCalls::kAllowed;
  std::string only;  // the function's name; "" = any
};

absl::StatusOr<Choice> ReadChoice(const Json& choice, const Json& tools) {
  if (choice == "none") return Choice{.calls = ToolCalls::kBanned};
  if (choice == "auto") return Choice{};
  if (choice == "required") return Choice{.calls = ToolCalls::kForced};
  if (!choice.is_object()) {
    return InvalidField("tool_choice",
                        "must be none, auto, required, or an object that names a function");
  }
  if (absl::Status bad = CheckType("tool_choice", choice, /*required=*/true); !bad.ok()) return bad;
  const Json* function = FindMember(choice, "function");
  if (function == nullptr || !function->is_object()) {
    return InvalidField("tool_choice.function", "must be an object");
  }
  auto name = ReadName("tool_choice.function", *function);
  if (!name.ok()) return name.status();
  const bool known = std::any_of(tools.begin(), tools.end(), [&](const Json& tool) {
    return tool["function"]["name"] == *name;
  });
  if (!known) return InvalidField("tool_choice.function.name", "is none of the tools");
  return Choice{.calls = ToolCalls::kForced, .only = *std::move(name)};
}

bool AnyIsStrict(const Json& tools) {
  return std::any_of(tools.begin(), tools.end(), [](const Json& tool) {
    const Json* strict = FindMember(tool["function"], "strict");
    return strict != nullptr && *strict == true;
  });
}

}  // namespace

void WarnOfOthers(const std::string& at, const Json& object,
                  std::initializer_list<std::string_view> known, RequestFields& fields) {
  for (const auto& [key, value] : object.items()) {
    if (value.is_null() || (value.is_structured() && value.empty())) continue;
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    fields.Warn(absl::StrCat(at, ".", key.substr(0, 64)), "unknown field, ignored");
  }
}

absl::StatusOr<std::string> ReadTools(RequestFields& fields) {
  const Json* tools = fields.Find("tools");
  if (tools == nullptr || tools->empty()) return "";
  if (tools->size() > kMaxTools) {
    return InvalidField("tools", absl::StrCat("at most ", kMaxTools, " tools"));
  }
  std::set<std::string> names;
  for (size_t i = 0; i < tools->size(); ++i) {
    const std::string at = absl::StrCat("tools[", i, "]");
    auto name = ReadTool(at, (*tools)[i], fields);
    if (!name.ok()) return name.status();
    if (!names.insert(*std::move(name)).second) {
      return InvalidField(at + ".function.name", "is the name of another tool too");
    }
  }
  return tools->dump();
}

absl::Status ReadToolChoice(RequestFields& fields, GenerationOptions& options) {
  const Json* tools = fields.Find("tools");
  const Json* written = fields.Find("tool_choice");
  const bool any_tools = tools != nullptr && !tools->empty();
  auto choice = written == nullptr ? absl::StatusOr<Choice>(Choice{})
                                   : ReadChoice(*written, any_tools ? *tools : Json::array());
  if (!choice.ok()) return choice.status();
  if (!any_tools) {
    if (choice->calls != ToolCalls::kForced) return absl::OkStatus();
    return InvalidField("tool_choice", "needs tools");
  }
  options.tool_calls = choice->calls;
  if (choice->calls == ToolCalls::kBanned) return absl::OkStatus();
  if (options.structure) {
    return InvalidField(options.structure->field,
                        "cannot be given together with tools, unless tool_choice is \"none\"");
  }
  const bool parallel = fields.Bool("parallel_tool_calls").value_or(true);
  const bool forced = choice->calls == ToolCalls::kForced;
  // What the model decides freely needs no form, and no form's time.
  if (!forced && parallel && !AnyIsStrict(*tools)) return absl::OkStatus();
  auto schema = SchemaOfCalls(
      *tools, {.only = choice->only, .many = parallel && choice->only.empty(), .forced = forced});
  if (!schema.ok()) return schema.status();
  options.structure = {
      .kind = StructureOptions::Kind::kJsonSchema, .text = *std::move(schema), .field = "tools"};
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadToolCallId(const std::string& at, const Json& id,
                                           RequestFields& fields) {
  if (!id.is_string()) return InvalidField(at, "must be a string");
  const auto& text = id.get_ref<const std::string&>();
  if (text.empty() || text.size() > kMaxIdBytes) {
    return InvalidField(at, absl::StrCat("must have 1 to ", kMaxIdBytes, " bytes"));
  }
  if (IsModelId(text)) return text;
  std::string replaced = ModelIdOf(text);
  fields.Warn(at, absl::StrCat("this model's ids are 9 of [a-zA-Z0-9]: it sees ", replaced));
  return replaced;
}

absl::StatusOr<std::vector<ToolCall>> ReadToolCalls(const std::string& at, const Json& calls,
                                                    RequestFields& fields) {
  if (!calls.is_array()) return InvalidField(at, "must be a list");
  if (calls.size() > kMaxCalls) {
    return InvalidField(at, absl::StrCat("at most ", kMaxCalls, " calls"));
  }
  std::vector<ToolCall> read;
  for (size_t i = 0; i < calls.size(); ++i) {
    const Json& call = calls[i];
    const std::string one = absl::StrCat(at, "[", i, "]");
    if (!call.is_object()) return InvalidField(one, "must be an object");
    if (absl::Status bad = CheckType(one, call, /*required=*/false); !bad.ok()) return bad;
    const Json* function = FindMember(call, "function");
    if (function == nullptr || !function->is_object()) {
      return InvalidField(one + ".function", "must be an object");
    }
    auto name = ReadName(one + ".function", *function);
    if (!name.ok()) return name.status();
    const Json* arguments = FindMember(*function, "arguments");
    if (arguments == nullptr || !arguments->is_string()) {
      return InvalidField(one + ".function.arguments", "must be a string of JSON");
    }
    const Json* id = FindMember(call, "id");
    auto read_id = ReadToolCallId(one + ".id", id == nullptr ? Json() : *id, fields);
    if (!read_id.ok()) return read_id.status();
    WarnOfOthers(one, call, {"id", "type", "function", "index"}, fields);
    WarnOfOthers(one + ".function", *function, {"name", "arguments"}, fields);
    read.push_back({.id = *std::move(read_id),
                    .name = *std::move(name),
                    .arguments = arguments->get<std::string>()});
  }
  return read;
}

absl::Status CheckToolMessages(const std::vector<ChatMessage>& messages) {
  std::set<std::string> open;  // ids not answered yet
  size_t caller = 0;
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string at = absl::StrCat("messages[", i, "]");
    if (messages[i].role == "tool") {
      if (open.erase(messages[i].tool_call_id) == 1) continue;
      return InvalidField(at + ".tool_call_id",
                          "must be of a call of the assistant's before it, which is not answered "
                          "yet");
    }
    if (!open.empty()) break;
    for (size_t k = 0; k < messages[i].tool_calls.size(); ++k) {
      caller = i;
      if (open.insert(messages[i].tool_calls[k].id).second) continue;
      return InvalidField(absl::StrCat(at, ".tool_calls[", k, "].id"), "appears twice");
    }
  }
  if (open.empty()) return absl::OkStatus();
  return InvalidField(absl::StrCat("messages[", caller, "].tool_calls"),
                      "each must be answered by a message of role tool, before anything else");
}

}  // namespace behemoth::gateway
