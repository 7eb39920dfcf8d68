// Every field that is no number: switches, texts, lists, objects; at their bounds, null, absent, of
// the wrong type (spec api.md section 3; operations.md 6, items 17, 18 and 20).
#include <functional>

#include "tests/unit/gateway/api/bodies.h"

namespace behemoth::gateway {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

const std::vector<std::string> kNoBool = {"0", "1", R"("true")", R"("")", "[]", "{}", "1.0"};
const std::vector<std::string> kNoString = {"0", "true", "[]", "{}", "1.5"};
const std::vector<std::string> kNoObject = {"0", "true", "[]", R"("{}")", "1.5"};

std::string Text(size_t bytes) {
  std::string text(bytes + 2, 'a');
  text.front() = text.back() = '"';
  return text;
}

std::string ListOf(size_t count, const std::function<std::string(size_t)>& item) {
  std::string list = "[";
  for (size_t i = 0; i < count; ++i) list += (i > 0 ? "," : "") + item(i);
  return list + "]";
}

struct SwitchField {
  std::string name;
  bool absent;
  std::function<bool(const GenerationOptions&)> read;
};

const std::vector<SwitchField>& Switches() {
  using G = GenerationOptions;
  static const std::vector<SwitchField> switches = {
      {"stream", false, [](const G& o) { return o.output.stream; }},
      {"echo", false, [](const G& o) { return o.output.echo; }},
      {"ignore_eos", false, [](const G& o) { return o.stop.ignore_eos; }},
      {"include_stop_str_in_output", false, [](const G& o) { return o.stop.include_in_output; }},
      {"skip_special_tokens", true, [](const G& o) { return o.output.skip_special_tokens; }},
      {"return_token_ids", false, [](const G& o) { return o.output.return_token_ids; }},
      {"return_timings", false, [](const G& o) { return o.output.return_timings; }},
  };
  return switches;
}

TEST(OtherFieldsTest, SwitchesTakeTrueAndFalseAndNothingElse) {
  for (const SwitchField& field : Switches()) {
    for (const Endpoints route : {kChatRoute, kCompletionRoute}) {
      SCOPED_TRACE(field.name);
      EXPECT_EQ(field.read(*ParseOptionsOf(route, "")), field.absent);
      EXPECT_EQ(field.read(*ParseOptionsOf(route, Member(field.name, "null"))), field.absent);
      EXPECT_TRUE(field.read(*ParseOptionsOf(route, Member(field.name, "true"))));
      EXPECT_FALSE(field.read(*ParseOptionsOf(route, Member(field.name, "false"))));
      for (const std::string& bad : kNoBool) {
        SCOPED_TRACE(bad);
        ExpectRefused(ParseOptionsOf(route, Member(field.name, bad)).status(), field.name);
      }
    }
  }
}

// Of every route: each switch of the table, its own test or not.
TEST(OtherFieldsTest, EverySwitchTextAndObjectOfTheTableRefusesTheWrongType) {
  for (const FieldSpec& field : FieldTable()) {
    const auto* wrong = field.kind == FieldKind::kBool     ? &kNoBool
                        : field.kind == FieldKind::kString ? &kNoString
                        : field.kind == FieldKind::kObject ? &kNoObject
                                                           : nullptr;
    if (wrong == nullptr) continue;
    for (const Endpoints route : {kChatRoute, kCompletionRoute, kTokenizeRoute, kDetokenizeRoute}) {
      if ((field.routes & route) == 0) continue;
      for (const std::string& bad : *wrong) {
        SCOPED_TRACE(std::string(field.name) + " = " + bad);
        ExpectRefused(Parse(route, BodyOf(route, Member(field.name, bad))), field.name);
      }
    }
  }
}

struct TextField {
  std::string name;
  size_t max_bytes;
  std::function<std::string(const GenerationOptions&)> read;
};

TEST(OtherFieldsTest, TextsAreBounded) {
  using G = GenerationOptions;
  const std::vector<TextField> texts = {
      {"model", 256, [](const G& o) { return o.model; }},
      {"user", 256, [](const G& o) { return o.user; }},
      {"cache_salt", 128, [](const G& o) { return o.cache_salt; }},
      {"request_id", 128, [](const G& o) { return o.request_id.value_or(""); }},
  };
  for (const TextField& field : texts) {
    SCOPED_TRACE(field.name);
    EXPECT_EQ(field.read(*Chat("")), "");
    EXPECT_EQ(field.read(*Chat(Member(field.name, "null"))), "");
    EXPECT_EQ(field.read(*Chat(Member(field.name, R"("a.b")"))), "a.b");
    EXPECT_EQ(field.read(*Chat(Member(field.name, Text(field.max_bytes)))).size(), field.max_bytes);
    ExpectRefused(Chat(Member(field.name, Text(field.max_bytes + 1))).status(), field.name);
  }
}

TEST(OtherFieldsTest, ARequestIdIsPlain) {
  EXPECT_EQ(Chat("")->request_id, std::nullopt);
  EXPECT_EQ(Chat(R"("request_id":"Az09._:-")")->request_id, "Az09._:-");
  for (const std::string bad : {R"("")", R"("a b")", R"("a/b")", R"("é")", R"("a\n")"}) {
    SCOPED_TRACE(bad);
    ExpectRefused(Chat(Member("request_id", bad)).status(), "request_id");
  }
}

TEST(OtherFieldsTest, StopIsAStringOrAListOfAtMost64StringsOf256Bytes) {
  const auto stops = [](std::string_view json) { return Chat(Member("stop", json))->stop.strings; };
  EXPECT_THAT(Chat("")->stop.strings, IsEmpty());
  EXPECT_THAT(stops("null"), IsEmpty());
  EXPECT_THAT(stops("[]"), IsEmpty());
  EXPECT_THAT(stops(R"("")"), IsEmpty());
  EXPECT_THAT(stops(R"("x")"), ElementsAre("x"));
  EXPECT_THAT(stops(R"(["b","a","b"])"), ElementsAre("b", "a"));
  EXPECT_THAT(stops(R"(["\u00e9\n"])"), ElementsAre("é\n"));
  EXPECT_EQ(stops("[" + Text(256) + "]").size(), 1u);
  const auto different = [](size_t i) { return "\"" + std::to_string(i) + '"'; };
  EXPECT_EQ(stops(ListOf(64, different)).size(), 64u);
  for (const std::string& bad :
       {ListOf(65, different), Text(257), "[" + Text(257) + "]", std::string(R"([""])"),
        std::string(R"(["a",1])"), std::string("[null]"), std::string("1"), std::string("{}"),
        std::string("true"), std::string(R"([["a"]])")}) {
    SCOPED_TRACE(bad.substr(0, 40));
    ExpectRefused(Chat(Member("stop", bad)).status(), "stop");
  }
  EXPECT_THAT(Chat(R"("stopping_strings":["a"])")->stop.strings, ElementsAre("a"));
  ExpectRefused(Chat(R"("stopping_strings":[""])").status(), "stopping_strings");
}

TEST(OtherFieldsTest, StopScopeIsAllOrAnswer) {
  EXPECT_EQ(Chat("")->stop.scope, StopScope::kAll);
  EXPECT_EQ(Chat(R"("stop_scope":"all")")->stop.scope, StopScope::kAll);
  EXPECT_EQ(Chat(R"("stop_scope":"answer")")->stop.scope, StopScope::kAnswer);
  ExpectRefused(Chat(R"("stop_scope":"thought")").status(), "stop_scope");
  ExpectRefused(Chat(R"("stop_scope":"")").status(), "stop_scope");
}

TEST(OtherFieldsTest, IdListsTakeIdsOnlyAndNameTheElementAtFault) {
  const auto one = [](size_t) { return std::string("7"); };
  for (const std::string name : {"stop_token_ids", "allowed_token_ids", "custom_token_bans"}) {
    SCOPED_TRACE(name);
    EXPECT_TRUE(Chat(Member(name, "null")).ok());
    EXPECT_TRUE(Chat(Member(name, "[0,4294967295]")).ok());
    for (const std::string bad : {"[5,-1]", "[5,4294967296]", "[5,1.0]", "[5,true]", "[5,null]",
                                  R"([5,"6"])", "[5,-0]", "[5,[6]]"}) {
      SCOPED_TRACE(bad);
      ExpectRefused(Chat(Member(name, bad)).status(), name + "[1]");
    }
    for (const std::string bad : {"5", "{}", "true"}) {
      SCOPED_TRACE(bad);
      ExpectRefused(Chat(Member(name, bad)).status(), name);
    }
    ExpectRefused(Chat(Member(name, ListOf((1 << 18) + 1, one))).status(), name);
  }
  EXPECT_THAT(Chat(R"("stop_token_ids":[3,2])")->stop.token_ids, ElementsAre(3, 2));
  EXPECT_TRUE(Chat(Member("stop_token_ids", ListOf(256, one))).ok());
  ExpectRefused(Chat(Member("stop_token_ids", ListOf(257, one))).status(), "stop_token_ids");
  EXPECT_THAT(Chat(R"("allowed_token_ids":[3,2])")->sampling.allowed_ids, ElementsAre(3, 2));
  ExpectRefused(Chat(R"("allowed_token_ids":[])").status(), "allowed_token_ids");
}

TEST(OtherFieldsTest, TokenBansAreAListOrTextWithCommas) {
  EXPECT_THAT(Chat(R"("custom_token_bans":[3,2])")->sampling.banned_ids, ElementsAre(3, 2));
  EXPECT_THAT(Chat(R"("custom_token_bans":"3, 2,")")->sampling.banned_ids, ElementsAre(3, 2));
  EXPECT_THAT(Chat(R"("custom_token_bans":"")")->sampling.banned_ids, IsEmpty());
  for (const std::string bad : {R"("x")", R"("-1")", R"("4294967296")", R"("1;2")"}) {
    SCOPED_TRACE(bad);
    ExpectRefused(Chat(Member("custom_token_bans", bad)).status(), "custom_token_bans");
  }
  std::string many = "1";
  for (int i = 0; i < 1 << 18; ++i) many += ",1";
  ExpectRefused(Chat(Member("custom_token_bans", '"' + many + '"')).status(), "custom_token_bans");
}

TEST(OtherFieldsTest, LogitBiasTakesIdsAsTextAndMinus100To100) {
  const auto bias = Chat(R"("logit_bias":{"13":100,"2":-100,"7":-0.5})")->sampling.logit_bias;
  EXPECT_THAT(bias,
              ElementsAre(testing::Pair(2, -100), testing::Pair(7, -0.5), testing::Pair(13, 100)));
  EXPECT_THAT(Chat(R"("logit_bias":{})")->sampling.logit_bias, IsEmpty());
  EXPECT_THAT(Chat(R"("logit_bias":[])")->sampling.logit_bias, IsEmpty());
  EXPECT_THAT(Chat(R"("logit_bias":[[13,0.5],[2,false]])")->sampling.logit_bias,
              ElementsAre(testing::Pair(2, -100), testing::Pair(13, 0.5)));
  const std::pair<std::string, std::string> bad[] = {
      {R"({"a":1})", "logit_bias.a"},     {R"({"":1})", "logit_bias."},
      {R"({"-1":1})", "logit_bias.-1"},   {R"({"1.0":1})", "logit_bias.1.0"},
      {R"({" 1":1})", "logit_bias. 1"},   {R"({"4294967296":1})", "logit_bias.4294967296"},
      {R"({"1":101})", "logit_bias.1"},   {R"({"1":-100.5})", "logit_bias.1"},
      {R"({"1":"1"})", "logit_bias.1"},   {R"({"1":null})", "logit_bias.1"},
      {R"({"1":true})", "logit_bias.1"},  {R"({"1":1,"01":2})", "logit_bias.01"},
      {R"({"1":1e400})", "logit_bias.1"}, {"1", "logit_bias"},
      {R"([[1,2],[3]])", "logit_bias.1"}, {R"([[-1,2]])", "logit_bias.0"},
      {R"([[1,101]])", "logit_bias.0"},   {R"([[1,1],[1,1]])", "logit_bias.1"},
      {R"([[1,true]])", "logit_bias.0"},  {R"("x")", "logit_bias"},
  };
  for (const auto& [json, param] : bad) {
    SCOPED_TRACE(json);
    ExpectRefused(Chat(Member("logit_bias", json)).status(), param);
  }
  std::string many = "{";
  for (int i = 0; i < 1025; ++i) many += (i > 0 ? "," : "") + Member(std::to_string(i), "1");
  ExpectRefused(Chat(Member("logit_bias", many + "}")).status(), "logit_bias");
}

TEST(OtherFieldsTest, StreamOptionsNeedAStream) {
  const auto output = [](std::string_view options) {
    return Chat(R"("stream":true,"stream_options":)" + std::string(options))->output;
  };
  EXPECT_FALSE(output("{}").include_usage);
  EXPECT_TRUE(output(R"({"include_usage":true})").include_usage);
  EXPECT_TRUE(output(R"({"continuous_usage_stats":true})").continuous_usage_stats);
  EXPECT_FALSE(output(R"({"include_usage":null})").include_usage);
  ExpectRefused(Chat(R"("stream_options":{})").status(), "stream_options");
  ExpectRefused(Chat(R"("stream":true,"stream_options":{"include_usage":1})").status(),
                "stream_options.include_usage");
  ExpectRefused(Chat(R"("stream":true,"stream_options":{"x":true})").status(), "stream_options.x");
  const auto padded = Chat(R"("stream":true,"stream_options":{"include_obfuscation":true})");
  EXPECT_THAT(FieldsOf(padded->warnings), ElementsAre("stream_options.include_obfuscation"));
}

}  // namespace
}  // namespace behemoth::gateway
