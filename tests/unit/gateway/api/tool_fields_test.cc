// tools, tool_choice and the messages of calls: what is taken, and each refusal by its field.
#include <nlohmann/json.hpp>

#include "tests/unit/gateway/api/bodies.h"

namespace behemoth::gateway {
namespace {

using Json = nlohmann::ordered_json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kTool[] =
    R"({"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object",
        "properties":{"z":{"type":"string"},"a":{"$ref":"#/$defs/A"}},"required":["z"],
        "$defs":{"A":{"anyOf":[{"type":"null"},{"$ref":"#"}]}}}}})";

std::string Tools(std::string_view more = "") {
  return std::string(R"("tools":[)") + kTool + R"(,{"type":"function","function":{"name":"g"}}])" +
         std::string(more);
}

absl::StatusOr<ChatRequest> Request(const std::string& members, const ParseOptions& parse = {}) {
  return ParseChatRequest(BodyOf(kChatRoute, members), parse);
}

absl::StatusOr<ChatRequest> Messages(const std::string& messages) {
  return ParseChatRequest(R"({"messages":[{"role":"user","content":"hi"},)" + messages + "]}", {});
}

TEST(ToolFieldsTest, ToolsReachTheTemplateInTheOrderTheyWereWrittenIn) {
  const auto request = Request(Tools());
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->prompt.tools_json, Json::parse("{" + Tools() + "}")["tools"].dump());
  EXPECT_THAT(request->prompt.tools_json, HasSubstr(R"({"z":{"type":"string"},"a":)"));
  EXPECT_EQ(request->options.tool_calls, ToolCalls::kAllowed);
  EXPECT_FALSE(request->prompt.begins_with_calls);
  EXPECT_FALSE(request->options.structure);
  EXPECT_THAT(request->options.warnings, IsEmpty());
}

TEST(ToolFieldsTest, TheChoiceDecidesWhetherTheTokenForCallsComes) {
  const auto calls = [](std::string_view choice) {
    const auto request = Request(Tools(choice));
    EXPECT_TRUE(request.ok()) << choice << request.status();
    return request.ok() ? request->options.tool_calls : ToolCalls::kNoTools;
  };
  EXPECT_EQ(calls(R"(,"tool_choice":"auto")"), ToolCalls::kAllowed);
  EXPECT_EQ(calls(R"(,"tool_choice":null)"), ToolCalls::kAllowed);
  EXPECT_EQ(calls(R"(,"tool_choice":"none")"), ToolCalls::kBanned);
  EXPECT_EQ(calls(R"(,"tool_choice":"required")"), ToolCalls::kForced);
  EXPECT_EQ(calls(R"(,"tool_choice":{"type":"function","function":{"name":"g"}})"),
            ToolCalls::kForced);
  for (const std::string without : {R"("tools":[])", R"("tools":null,"tool_choice":"auto")",
                                    R"("tool_choice":"none","parallel_tool_calls":false)"}) {
    const auto request = Request(without);
    ASSERT_TRUE(request.ok()) << without;
    EXPECT_EQ(request->options.tool_calls, ToolCalls::kNoTools);
    EXPECT_EQ(request->prompt.tools_json, "");
  }
}

TEST(ToolFieldsTest, AForcedCallIsAListOfTheFunctionsWithTheirOwnSchemas) {
  const auto request = Request(Tools(R"(,"tool_choice":"required")"));
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_TRUE(request->prompt.begins_with_calls);
  ASSERT_TRUE(request->options.structure);
  EXPECT_EQ(request->options.structure->field, "tools");
  const Json schema = Json::parse(request->options.structure->text);
  EXPECT_EQ(schema["type"], "array");
  EXPECT_EQ(schema["minItems"], 1);
  EXPECT_FALSE(schema.contains("maxItems"));
  ASSERT_EQ(schema["items"]["anyOf"].size(), 2u);
  const Json& first = schema["items"]["anyOf"][0];
  EXPECT_EQ(first["properties"]["name"]["const"], "f");
  EXPECT_EQ(first["required"], Json({"name", "arguments"}));
  // References point to where the function's own schema stands now.
  EXPECT_EQ(first["properties"]["arguments"]["$ref"], "#/$defs/arguments_0");
  const Json& own = schema["$defs"]["arguments_0"];
  EXPECT_EQ(own["properties"]["a"]["$ref"], "#/$defs/arguments_0/$defs/A");
  EXPECT_EQ(own["$defs"]["A"]["anyOf"][1]["$ref"], "#/$defs/arguments_0");
  // A function without parameters takes none.
  EXPECT_EQ(schema["$defs"]["arguments_1"],
            Json::parse(R"({"type":"object","additionalProperties":false})"));
}

TEST(ToolFieldsTest, ANamedOneAndNoParallelCallsAreOneCall) {
  const auto named =
      Request(Tools(R"(,"tool_choice":{"type":"function","function":{"name":"g"}})"));
  ASSERT_TRUE(named.ok()) << named.status();
  const Json one = Json::parse(named->options.structure->text);
  EXPECT_EQ(one["maxItems"], 1);
  ASSERT_EQ(one["items"]["anyOf"].size(), 1u);
  EXPECT_EQ(one["items"]["anyOf"][0]["properties"]["name"]["const"], "g");
  const auto single = Request(Tools(R"(,"tool_choice":"required","parallel_tool_calls":false)"));
  EXPECT_EQ(Json::parse(single->options.structure->text)["maxItems"], 1);
}

TEST(ToolFieldsTest, UnknownMembersAreNamedInWarnings) {
  const auto request = Request(
      R"("tools":[{"type":"function","x":1,"function":{"name":"f","y":2,"description":null}}])");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_THAT(FieldsOf(request->options.warnings),
              ElementsAre("tools[0].x", "tools[0].function.y"));
  const auto strict =
      Request(R"("tools":[{"type":"function","x":1,"function":{"name":"f"}}])", {.strict = true});
  ExpectRefused(strict.status(), "tools[0].x");
}

TEST(ToolFieldsTest, ACallThatMayComeHasAFormIfItMustBeStrictOrAlone) {
  const auto alone = Request(Tools(R"(,"parallel_tool_calls":false)"));
  ASSERT_TRUE(alone.ok() && alone->options.structure) << alone.status();
  EXPECT_EQ(alone->options.tool_calls, ToolCalls::kAllowed);
  const Json one = Json::parse(alone->options.structure->text);
  EXPECT_EQ(one["maxItems"], 1);
  EXPECT_EQ(one["$defs"]["arguments_0"], Json::parse(R"({"type":"object"})"));
  const auto strict = Request(
      R"("tools":[{"type":"function","function":{"name":"f","strict":true,"parameters":{
           "type":"object","properties":{"a":{"type":"null"}}}}},
         {"type":"function","function":{"name":"g","strict":false}}])");
  ASSERT_TRUE(strict.ok() && strict->options.structure) << strict.status();
  const Json both = Json::parse(strict->options.structure->text);
  EXPECT_FALSE(both.contains("maxItems"));
  EXPECT_TRUE(both["$defs"]["arguments_0"].contains("properties"));
  EXPECT_EQ(both["$defs"]["arguments_1"], Json::parse(R"({"type":"object"})"));
}

TEST(ToolFieldsTest, EachWrongToolAndChoiceIsNamed) {
  const auto tool = [](const std::string& function) {
    return R"("tools":[{"type":"function","function":)" + function + "}]";
  };
  const std::string many(1025, 'x');
  const std::pair<std::string, std::string> cases[] = {
      {R"("tools":{})", "tools"},
      {R"("tools":"f")", "tools"},
      {R"("tools":[1])", "tools[0]"},
      {R"("tools":[{}])", "tools[0].type"},
      {R"("tools":[{"type":"retrieval"}])", "tools[0].type"},
      {R"("tools":[{"type":"function"}])", "tools[0].function"},
      {tool("[]"), "tools[0].function"},
      {tool("{}"), "tools[0].function.name"},
      {tool(R"({"name":1})"), "tools[0].function.name"},
      {tool(R"({"name":""})"), "tools[0].function.name"},
      {tool(R"({"name":"a b"})"), "tools[0].function.name"},
      {tool(R"({"name":"é"})"), "tools[0].function.name"},
      {tool(R"({"name":")" + std::string(65, 'a') + R"("})"), "tools[0].function.name"},
      {tool(R"({"name":"f","description":1})"), "tools[0].function.description"},
      {tool(R"({"name":"f","parameters":[]})"), "tools[0].function.parameters"},
      {tool(R"({"name":"f","parameters":"{}"})"), "tools[0].function.parameters"},
      {tool(R"({"name":"f","strict":1})"), "tools[0].function.strict"},
      {std::string("\"tools\":[") + kTool + "," + kTool + "]", "tools[1].function.name"},
      {Tools(R"(,"tool_choice":"any")"), "tool_choice"},
      {Tools(R"(,"tool_choice":true)"), "tool_choice"},
      {Tools(R"(,"tool_choice":["auto"])"), "tool_choice"},
      {Tools(R"(,"tool_choice":{})"), "tool_choice.type"},
      {Tools(R"(,"tool_choice":{"type":"allowed_tools"})"), "tool_choice.type"},
      {Tools(R"(,"tool_choice":{"type":"function"})"), "tool_choice.function"},
      {Tools(R"(,"tool_choice":{"type":"function","function":{}})"), "tool_choice.function.name"},
      {Tools(R"(,"tool_choice":{"type":"function","function":{"name":"h"}})"),
       "tool_choice.function.name"},
      {R"("tool_choice":"required")", "tool_choice"},
      {R"("tools":[],"tool_choice":"required")", "tool_choice"},
      {Tools(R"(,"parallel_tool_calls":1)"), "parallel_tool_calls"},
      {Tools(R"(,"guided_regex":"a")"), "guided_regex"},
      {Tools(R"(,"response_format":{"type":"json_object"},"tool_choice":"required")"),
       "response_format"},
      {tool(R"({"name":"f","parameters":{"type":"string"}})") + R"(,"tool_choice":"required")",
       "tools[0].function.parameters"},
  };
  for (const auto& [members, param] : cases) {
    SCOPED_TRACE(members);
    ExpectRefused(Request(members).status(), param);
  }
  EXPECT_TRUE(Request(Tools(R"(,"guided_regex":"a","tool_choice":"none")")).ok());
}

TEST(ToolFieldsTest, TheOldNamesAndTheOtherRoutesSayWhatToUse) {
  for (const auto& [route, name, use] :
       {std::tuple{kChatRoute, "functions", "use tools"},
        std::tuple{kChatRoute, "function_call", "use tool_choice"},
        std::tuple{kCompletionRoute, "tools", "use /v1/chat/completions"},
        std::tuple{kCompletionRoute, "tool_choice", "use /v1/chat/completions"}}) {
    const auto status = Parse(route, BodyOf(route, Member(name, R"(["x"])")));
    ExpectRefused(status, name);
    EXPECT_THAT(std::string(status.message()), HasSubstr(use));
  }
}

TEST(ToolFieldsTest, ACallAndItsResultAreTakenInOpenAisForm) {
  const auto request = Messages(
      R"({"role":"assistant","content":null,"tool_calls":[
           {"id":"aB3dE6gH9","type":"function","index":0,
            "function":{"name":"f","arguments":"{\"a\": 1}"}},
           {"id":"call_WZ1","function":{"name":"g","arguments":""}}]},
         {"role":"tool","tool_call_id":"call_WZ1","content":[{"type":"text","text":"x"}]},
         {"role":"tool","tool_call_id":"aB3dE6gH9","content":"","name":"f"})");
  ASSERT_TRUE(request.ok()) << request.status();
  const auto& messages = request->prompt.messages;
  ASSERT_EQ(messages.size(), 4u);
  EXPECT_EQ(messages[1].content, "");
  ASSERT_EQ(messages[1].tool_calls.size(), 2u);
  EXPECT_EQ(messages[1].tool_calls[0].id, "aB3dE6gH9");
  EXPECT_EQ(messages[1].tool_calls[0].name, "f");
  EXPECT_EQ(messages[1].tool_calls[0].arguments, R"({"a": 1})");
  // An id of another server's becomes one of this model's, the same in both places.
  const std::string& id = messages[1].tool_calls[1].id;
  EXPECT_THAT(id, testing::MatchesRegex("[a-zA-Z0-9]{9}"));
  EXPECT_EQ(messages[2].tool_call_id, id);
  EXPECT_EQ(messages[2].content, "x");
  EXPECT_EQ(messages[3].tool_call_id, "aB3dE6gH9");
  EXPECT_THAT(FieldsOf(request->options.warnings),
              ElementsAre("messages[1].tool_calls[1].id", "messages[2].tool_call_id"));
  EXPECT_THAT(request->options.warnings[0].message, HasSubstr(id));
}

TEST(ToolFieldsTest, EachWrongMessageIsNamed) {
  const auto calls = [](const std::string& list) {
    return R"({"role":"assistant","tool_calls":)" + list + "}";
  };
  const auto call = [&](const std::string& id) {
    return R"({"id":")" + id + R"(","function":{"name":"f","arguments":"{}"}})";
  };
  const auto result = [](const std::string& id) {
    return R"({"role":"tool","content":"x","tool_call_id":")" + id + R"("})";
  };
  const std::string one = calls("[" + call("123456789") + "]");
  const std::string user = R"({"role":"user","content":"x"})";
  const std::pair<std::string, std::string> cases[] = {
      {calls("{\"a\":1}"), "messages[1].tool_calls"},
      {calls("{}"), "messages[1].tool_calls"},
      {calls("\"\""), "messages[1].tool_calls"},
      {calls("[1]"), "messages[1].tool_calls[0]"},
      {calls(R"([{"type":"x"}])"), "messages[1].tool_calls[0].type"},
      {calls(R"([{"id":"a"}])"), "messages[1].tool_calls[0].function"},
      {calls(R"([{"id":"a","function":{}}])"), "messages[1].tool_calls[0].function.name"},
      {calls(R"([{"id":"a","function":{"name":"f"}}])"),
       "messages[1].tool_calls[0].function.arguments"},
      {calls(R"([{"id":"a","function":{"name":"f","arguments":{}}}])"),
       "messages[1].tool_calls[0].function.arguments"},
      {calls(R"([{"function":{"name":"f","arguments":""}}])"), "messages[1].tool_calls[0].id"},
      {calls(R"([{"id":7,"function":{"name":"f","arguments":""}}])"),
       "messages[1].tool_calls[0].id"},
      {calls("[" + call("") + "]"), "messages[1].tool_calls[0].id"},
      {calls("[" + call("a") + "," + call("a") + "]"), "messages[1].tool_calls[1].id"},
      {R"({"role":"assistant","tool_calls":[]})", "messages[1].content"},
      {R"({"role":"user","content":"a","tool_calls":[{}]})", "messages[1].tool_calls"},
      {R"({"role":"assistant","content":"a","function_call":{"name":"f"}})",
       "messages[1].function_call"},
      {R"({"role":"function","content":"a","name":"f"})", "messages[1].role"},
      {R"({"role":"tool","content":"a"})", "messages[1].tool_call_id"},
      {R"({"role":"tool","content":"a","tool_call_id":1})", "messages[1].tool_call_id"},
      {result("123456789"), "messages[1].tool_call_id"},
      {one, "messages[1].tool_calls"},
      {one + "," + user, "messages[1].tool_calls"},
      {one + "," + result("987654321"), "messages[2].tool_call_id"},
      {one + "," + result("123456789") + "," + result("123456789"), "messages[3].tool_call_id"},
      {one + R"(,{"role":"tool","tool_call_id":"123456789"})", "messages[2].content"},
      {one + "," + result("123456789") + "," + user + "," + result("123456789"),
       "messages[4].tool_call_id"},
  };
  for (const auto& [messages, param] : cases) {
    SCOPED_TRACE(messages);
    ExpectRefused(Messages(messages).status(), param);
  }
  EXPECT_TRUE(Messages(one + "," + result("123456789") + "," + user).ok());
}

TEST(ToolFieldsTest, TokenizeCountsTheToolsToo) {
  const auto request = ParseTokenizeRequest(BodyOf(kTokenizeRoute, Tools()), {});
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_THAT(std::get<ChatPrompt>(request->input).tools_json, HasSubstr("\"g\""));
  const auto text = ParseTokenizeRequest(R"({"prompt":"a",)" + Tools() + "}", {});
  ASSERT_TRUE(text.ok());
  EXPECT_THAT(FieldsOf(text->warnings), ElementsAre("tools"));
}

}  // namespace
}  // namespace behemoth::gateway
