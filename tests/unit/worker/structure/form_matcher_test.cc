#include "worker/structure/form_matcher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "worker/structure/utf8_walk.h"

namespace behemoth::worker {
namespace {

constexpr TokenId kStop = 0;

// 0 is a control token.
std::shared_ptr<const Vocabulary> Words() {
  return *Vocabulary::Make({"</s>", "a", "b", "ab", "<", "/t>", "</t>", ">a", ">b", "/t", "x</t>a",
                            "x</t>b", "</t></t>"},
                           {kStop}, 13);
}

constexpr TokenId kCall = 10;

// The same with another one.
std::shared_ptr<const Vocabulary> WordsWithCall() {
  return *Vocabulary::Make(
      {"</s>", "a", "b", "ab", "<", "/t>", "</t>", ">a", ">b", "/t", "[C]", "x</t>b", "</t></t>"},
      {kStop, kCall}, 13);
}

std::string Allowed(FormMatcher& matcher) {
  TokenMask mask;
  const FormState state = matcher.Fill(&mask);
  if (state == FormState::kComplete) return "complete";
  if (state == FormState::kFailed) return "failed";
  std::string ids;
  for (TokenId id = 0; id < 13; ++id) {
    if (mask[0] >> id & 1) ids += (ids.empty() ? "" : " ") + std::to_string(id);
  }
  return ids;
}

FormMatcher Regex(const std::string& regex, const std::string& begins_after = "") {
  auto form = CompiledForm::Compile(
      {.kind = FormSpec::Kind::kRegex, .text = regex, .begins_after = begins_after}, Words());
  EXPECT_TRUE(form.ok()) << form.status();
  return FormMatcher(*form, {kStop});
}

TEST(FormMatcherTest, StopIdsMayComeWhereTheTextMayEndAndTheEndIsTold) {
  FormMatcher matcher = Regex("ab?");
  EXPECT_EQ(Allowed(matcher), "1 3");
  EXPECT_TRUE(matcher.Accept(1));
  EXPECT_EQ(Allowed(matcher), "0 2");
  EXPECT_TRUE(matcher.Accept(2));
  EXPECT_EQ(Allowed(matcher), "complete");
}

TEST(FormMatcherTest, ATextThatHasLeftItsFormStaysLost) {
  FormMatcher matcher = Regex("ab");
  EXPECT_FALSE(matcher.Accept(2));
  EXPECT_FALSE(matcher.Accept(1));
  EXPECT_EQ(Allowed(matcher), "failed");
}

// "x</t>a" ends the marker and begins the form; "x</t>b" would end it with what the form is not.
TEST(FormMatcherTest, ATokenMayEndTheMarkerAndBeginTheForm) {
  FormMatcher matcher = Regex("ab", "</t>");
  EXPECT_EQ(Allowed(matcher), "1 2 3 4 5 6 7 8 9 10");
  EXPECT_TRUE(matcher.Accept(4));                     // "<"
  EXPECT_TRUE(matcher.Accept(9));                     // "</t"
  EXPECT_EQ(Allowed(matcher), "1 2 3 4 5 6 7 9 10");  // not ">b"
  EXPECT_TRUE(matcher.Accept(7));                     // "</t>a"
  EXPECT_EQ(Allowed(matcher), "2");
  EXPECT_TRUE(matcher.Accept(2));
  EXPECT_EQ(Allowed(matcher), "complete");
}

TEST(FormMatcherTest, AMarkerIsFoundThoughAnAttemptAtItFails) {
  Marker marker("aab");
  size_t matched = 0;
  EXPECT_EQ(marker.Find("aa", &matched), std::string_view::npos);
  EXPECT_EQ(marker.Find("abx", &matched), 2u);  // "aaab" holds it from its second byte on
}

TEST(FormMatcherTest, BehindAControlTokenTheFormHoldsAndBeforeItAnythingGoes) {
  const auto form = CompiledForm::Compile(
      {.kind = FormSpec::Kind::kRegex, .text = "ab", .begins_after_id = kCall}, WordsWithCall());
  ASSERT_TRUE(form.ok()) << form.status();
  FormMatcher matcher(*form, {kStop});
  EXPECT_EQ(Allowed(matcher), "0 1 2 3 4 5 6 7 8 9 10 11 12");  // the end too
  EXPECT_TRUE(matcher.Accept(8));
  EXPECT_EQ(Allowed(matcher), "0 1 2 3 4 5 6 7 8 9 10 11 12");
  EXPECT_TRUE(matcher.Accept(kCall));
  EXPECT_EQ(Allowed(matcher), "1 3");
  EXPECT_TRUE(matcher.Accept(3));
  EXPECT_EQ(Allowed(matcher), "complete");
}

TEST(FormMatcherTest, AnIdThatIsNoControlTokensOrTwoBeginningsAreRefused) {
  for (const FormSpec& spec :
       {FormSpec{.kind = FormSpec::Kind::kRegex, .text = "a", .begins_after_id = 1},
        FormSpec{.kind = FormSpec::Kind::kRegex, .text = "a", .begins_after_id = 13},
        FormSpec{.kind = FormSpec::Kind::kRegex,
                 .text = "a",
                 .begins_after = "</t>",
                 .begins_after_id = kStop}}) {
    const auto form = CompiledForm::Compile(spec, Words());
    EXPECT_TRUE(absl::IsInvalidArgument(form.status())) << form.status();
    EXPECT_TRUE(std::string(form.status().message()).starts_with("structure.begins_after_id: "));
  }
}

// Every text that fits, by a walk over all allowed tokens; `ids` is the way to here.
void Walk(const std::shared_ptr<const CompiledForm>& form, std::vector<TokenId> ids,
          std::vector<std::string>& texts) {
  FormMatcher matcher(form, {0});
  std::string text;
  for (const TokenId id : ids) {
    EXPECT_TRUE(matcher.Accept(id));
    text += form->vocabulary().text(id);
  }
  TokenMask mask;
  const FormState state = matcher.Fill(&mask);
  if (state == FormState::kComplete) texts.push_back(text);
  if (state != FormState::kReady) return;
  ids.push_back(0);
  for (ids.back() = 1; ids.back() < form->vocabulary().size(); ++ids.back()) {
    if (mask[0] >> ids.back() & 1) Walk(form, ids, texts);
  }
}

// Against Python: json.dumps([1, 1]) == "[1, 1]".
TEST(FormMatcherTest, SpacesOfJsonDumpsAreTheOnlyOnes) {
  const auto words = *Vocabulary::Make({"</s>", " ", "[", "]", "1", ",", ":", "\n", "\t"}, {0}, 9);
  const auto form = CompiledForm::Compile(
      {.text = R"({"type":"array","items":{"const":1},"minItems":1,"maxItems":2})",
       .dumps_spaces = true},
      words);
  ASSERT_TRUE(form.ok()) << form.status();
  std::vector<std::string> texts;
  Walk(*form, {}, texts);
  std::sort(texts.begin(), texts.end());
  EXPECT_EQ(texts, (std::vector<std::string>{" [1, 1]", " [1]", "[1, 1]", "[1]"}));
}

// Against the definition: what encodes a code point that is no surrogate, in its shortest form.
TEST(Utf8WalkTest, TakesEveryCharacterAndNothingElse) {
  const auto encoded = [](uint32_t code) {
    std::string out;
    if (code < 0x80) return std::string(1, static_cast<char>(code));
    if (code < 0x800) {
      out = {static_cast<char>(0xc0 | code >> 6)};
    } else if (code < 0x10000) {
      out = {static_cast<char>(0xe0 | code >> 12), static_cast<char>(0x80 | (code >> 6 & 63))};
    } else {
      out = {static_cast<char>(0xf0 | code >> 18), static_cast<char>(0x80 | (code >> 12 & 63)),
             static_cast<char>(0x80 | (code >> 6 & 63))};
    }
    return out + static_cast<char>(0x80 | (code & 63));
  };
  size_t characters = 0;
  for (uint32_t code = 0; code < 0x1fffff; ++code) {
    const bool valid = code < 0x110000 && (code < 0xd800 || code > 0xdfff);
    const Utf8State end = WalkUtf8(kUtf8Start, encoded(code));
    ASSERT_EQ(end == kUtf8Start, valid) << code;
    characters += valid;
  }
  EXPECT_EQ(characters, 0x110000u - 0x800u);
  for (const char* broken : {"\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xf0\x80\x80\x80",
                             "\xc3(", "\xf5\x80\x80\x80", "\xff"}) {
    EXPECT_EQ(WalkUtf8(kUtf8Start, broken), kUtf8Broken);
  }
}

}  // namespace
}  // namespace behemoth::worker
