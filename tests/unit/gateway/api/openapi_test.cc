// /openapi.json against the table that validates requests: no field and no range has a second home.
#include "gateway/api/openapi.h"

#include <nlohmann/json.hpp>

#include "tests/unit/gateway/api/bodies.h"

namespace behemoth::gateway {
namespace {

using nlohmann::json;

constexpr DescribedRoute kRoutes[] = {
    {.method = "POST", .pattern = "/v1/chat/completions", .name = "chat"},
    {.method = "GET", .pattern = "/v1/models/*", .name = "model"},
    {.method = "GET", .pattern = "/health", .name = "health", .is_public = true},
    {.method = "GET", .pattern = "/odd", .name = "odd"}};

const json& Document() {
  static const json document = json::parse(OpenApiJson(kRoutes, "1.2.3"));
  return document;
}

const json& Properties(uint8_t route) {
  const std::string body = route == kChatRoute         ? "ChatRequest"
                           : route == kCompletionRoute ? "CompletionRequest"
                           : route == kTokenizeRoute   ? "TokenizeRequest"
                                                       : "DetokenizeRequest";
  return Document()["components"]["schemas"][body]["properties"];
}

constexpr Endpoints kBodies[] = {kChatRoute, kCompletionRoute, kTokenizeRoute, kDetokenizeRoute};

TEST(OpenApiTest, HoldsEveryFieldOfEveryBodyAndNoOther) {
  for (const Endpoints route : kBodies) {
    size_t fields = 0;
    for (const FieldSpec& field : FieldTable()) {
      if ((field.routes & route) == 0) continue;
      ++fields;
      EXPECT_TRUE(Properties(route).contains(std::string(field.name))) << field.name;
    }
    EXPECT_EQ(Properties(route).size(), fields);
  }
}

// What the description calls the ends of a range is taken by the parser, and one step beyond is
// not.
TEST(OpenApiTest, TheParserTakesExactlyTheDescribedRangeOfEveryInteger) {
  int held = 0;
  for (const auto& [name, schema] : Properties(kChatRoute).items()) {
    if (schema["x-support"] == "not_yet" || !schema.contains("maximum")) continue;
    if (schema["type"][0] != "integer" || name == "seed" || name == "sampler_seed") continue;
    for (const auto& [end, beyond] : {std::pair("minimum", -1), std::pair("maximum", 1)}) {
      const int64_t value = schema[end].get<int64_t>() + beyond;
      const auto bad = ParseOptionsOf(kChatRoute, Member(name, std::to_string(value)));
      EXPECT_EQ(bad.status().code(), absl::StatusCode::kInvalidArgument) << name << " " << value;
      ++held;
    }
    const auto low = ParseOptionsOf(kChatRoute, Member(name, schema["minimum"].dump()));
    EXPECT_TRUE(low.ok()) << name << low.status();
  }
  EXPECT_GT(held, 20);
}

TEST(OpenApiTest, WhatDoesNotWorkYetTakesOnlyTheValuesThatItNames) {
  int held = 0;
  for (const auto& [name, schema] : Properties(kChatRoute).items()) {
    if (schema["x-support"] != "not_yet") continue;
    for (const json& value : schema["enum"]) {
      EXPECT_TRUE(ParseOptionsOf(kChatRoute, Member(name, value.dump())).ok()) << name << value;
      ++held;
    }
  }
  EXPECT_GT(held, 10);
}

TEST(OpenApiTest, AnAliasNamesItsFieldAndTheFieldItsAliases) {
  for (const FieldSpec& field : FieldTable()) {
    if (field.alias_of.empty() || (field.routes & kCompletionRoute) == 0) continue;
    const json& properties = Properties(kCompletionRoute);
    EXPECT_EQ(properties[std::string(field.name)]["x-alias-of"], field.alias_of);
    EXPECT_THAT(properties[std::string(field.alias_of)]["x-aliases"],
                ::testing::Contains(json(std::string(field.name))));
  }
}

TEST(OpenApiTest, ABoundThatIsExcludedSaysSo) {
  const json& top_p = Properties(kChatRoute)["top_p"];
  EXPECT_EQ(top_p["exclusiveMinimum"], 0);
  EXPECT_EQ(top_p["maximum"], 1);
  EXPECT_TRUE(ParseOptionsOf(kChatRoute, Member("top_p", top_p["minimum"].dump())).ok());
  EXPECT_EQ(Properties(kChatRoute)["seed"]["minimum"], INT64_MIN);
  EXPECT_EQ(Properties(kChatRoute)["seed"]["maximum"], INT64_MAX);
  EXPECT_EQ(Properties(kChatRoute)["n"]["default"], 1);
}

TEST(OpenApiTest, ARouteHasItsPathParametersBodyAndKey) {
  const json& paths = Document()["paths"];
  EXPECT_EQ(paths["/v1/models/{id}"]["get"]["parameters"][0]["name"], "id");
  const json& chat = paths["/v1/chat/completions"]["post"];
  EXPECT_EQ(chat["requestBody"]["content"]["application/json"]["schema"]["$ref"],
            "#/components/schemas/ChatRequest");
  EXPECT_TRUE(chat["responses"]["200"]["content"].contains("text/event-stream"));
  EXPECT_TRUE(chat["responses"].contains("401"));
  EXPECT_EQ(paths["/health"]["get"]["security"], json::array());
  EXPECT_FALSE(paths["/health"]["get"]["responses"].contains("401"));
  EXPECT_EQ(paths["/odd"]["get"]["summary"], "odd");
}

}  // namespace
}  // namespace behemoth::gateway
