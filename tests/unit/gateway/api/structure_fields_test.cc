// Structured output in every spelling that OpenAI's, vLLM's, llama.cpp's and TabbyAPI's clients
// have (spec model.md 4.3): which form, which text, under whose name.
#include "tests/unit/gateway/api/bodies.h"

namespace behemoth::gateway {
namespace {

using Kind = StructureOptions::Kind;
using ::testing::IsEmpty;

void ExpectStructure(const std::string& members, Kind kind, const std::string& text,
                     const std::string& field) {
  SCOPED_TRACE(members);
  for (const Endpoints route : {kChatRoute, kCompletionRoute}) {
    const auto options = ParseOptionsOf(route, members);
    ASSERT_TRUE(options.ok()) << options.status();
    ASSERT_TRUE(options->structure);
    EXPECT_EQ(options->structure->kind, kind);
    EXPECT_EQ(options->structure->text, text);
    EXPECT_EQ(options->structure->field, field);
    EXPECT_THAT(options->warnings, IsEmpty());
  }
}

TEST(StructureFieldsTest, ResponseFormatIsTextAnObjectOrASchema) {
  ExpectStructure(R"("response_format":{"type":"json_object"})", Kind::kJsonSchema,
                  R"({"type":"object"})", "response_format");
  ExpectStructure(
      R"("response_format":{"type":"json_schema","json_schema":{"name":"x","strict":true,)"
      R"("schema":{"type":"integer"}}})",
      Kind::kJsonSchema, R"({"type":"integer"})", "response_format.json_schema.schema");
  for (const char* none : {R"({"type":"text"})", "{}", "null"}) {
    const auto options = Chat(Member("response_format", none));
    ASSERT_TRUE(options.ok()) << none;
    EXPECT_FALSE(options->structure) << none;
  }
  const std::pair<const char*, const char*> bad[] = {
      {R"({"type":1})", "response_format.type"},
      {R"({"json_schema":{}})", "response_format.type"},
      {R"({"type":"xml"})", "response_format.type"},
      {R"({"type":"json_schema"})", "response_format.json_schema"},
      {R"({"type":"json_schema","json_schema":{"schema":3}})",
       "response_format.json_schema.schema"},
  };
  for (const auto& [format, param] : bad) {
    ExpectRefused(Chat(Member("response_format", format)).status(), param);
  }
}

// The order of a schema's properties is the order in which they are written.
TEST(StructureFieldsTest, ASchemaKeepsTheOrderOfItsMembers) {
  const std::string schema =
      R"({"type":"object","properties":{"z":{"type":"null"},"a":{"type":"null"}}})";
  ExpectStructure(Member("guided_json", schema), Kind::kJsonSchema, schema, "guided_json");
}

TEST(StructureFieldsTest, EachClientsOwnFieldIsReadUnderItsOwnName) {
  const std::string schema = R"({"type":"boolean"})";
  for (const char* name : {"guided_json", "json_schema"}) {
    ExpectStructure(Member(name, schema), Kind::kJsonSchema, schema, name);
    ExpectStructure(Member(name, R"("{\"type\":\"null\"}")"), Kind::kJsonSchema,
                    R"({"type":"null"})", name);
    ExpectRefused(Chat(Member(name, "[1]")).status(), name);
  }
  ExpectStructure(R"("guided_regex":"a+\\d")", Kind::kRegex, R"(a+\d)", "guided_regex");
  for (const char* name : {"guided_grammar", "grammar", "grammar_string"}) {
    ExpectStructure(Member(name, R"("root ::= \"a\"")"), Kind::kGrammar, R"(root ::= "a")", name);
    ExpectRefused(Chat(Member(name, "1")).status(), name);
  }
}

TEST(StructureFieldsTest, AChoiceIsAGrammarOfItsTexts) {
  ExpectStructure(R"("guided_choice":["yes","no \"way\" \\ \n"])", Kind::kGrammar,
                  R"(root ::= "yes" | "no \"way\" \\ \n")", "guided_choice");
  ExpectRefused(Chat(R"("guided_choice":["a",1])").status(), "guided_choice");
  ExpectRefused(Chat(R"("guided_choice":["a",""])").status(), "guided_choice");
  ExpectRefused(Chat(R"("guided_choice":"a")").status(), "guided_choice");
}

TEST(StructureFieldsTest, VllmsObjectHoldsOneOfThem) {
  ExpectStructure(R"("structured_outputs":{"regex":"a","json":null,"disable_fallback":false})",
                  Kind::kRegex, "a", "structured_outputs.regex");
  ExpectStructure(R"("structured_outputs":{"json":{"type":"null"}})", Kind::kJsonSchema,
                  R"({"type":"null"})", "structured_outputs.json");
  ExpectStructure(R"("structured_outputs":{"json_object":true})", Kind::kJsonSchema,
                  R"({"type":"object"})", "structured_outputs.json_object");
  ExpectRefused(Chat(R"("structured_outputs":{"disable_any_whitespace":true})").status(),
                "structured_outputs.disable_any_whitespace");
  ExpectRefused(Chat(R"("structured_outputs":"a")").status(), "structured_outputs");
}

TEST(StructureFieldsTest, TwoAtOnceAreRefusedAndEmptyOnesAreNone) {
  ExpectRefused(Chat(R"("guided_regex":"a","response_format":{"type":"json_object"})").status(),
                "guided_regex");
  ExpectRefused(Chat(R"("structured_outputs":{"grammar":"a","regex":"b"})").status(),
                "structured_outputs");
  for (const char* members :
       {R"("guided_json":null)", R"("guided_regex":"")", R"("guided_choice":[])",
        R"("grammar_string":"","guided_grammar":"")", R"("structured_outputs":{})"}) {
    const auto options = Chat(members);
    ASSERT_TRUE(options.ok()) << members;
    EXPECT_FALSE(options->structure) << members;
  }
}

TEST(StructureFieldsTest, AnotherBackendIsNamed) {
  EXPECT_THAT(Chat(R"("guided_decoding_backend":"xgrammar")")->warnings, IsEmpty());
  EXPECT_THAT(FieldsOf(Chat(R"("guided_decoding_backend":"outlines")")->warnings),
              testing::ElementsAre("guided_decoding_backend"));
}

}  // namespace
}  // namespace behemoth::gateway
