// Samples texts of forms: the model is a uniform draw over what the mask allows, so that whatever
// a mask lets through comes soon. Lines of JSON in: {"kind": "json_schema", "text": "...",
// "begins_after": "", "samples": 5, "max_tokens": 400}; a line out for each: {"error": "..."} or
// {"ms": 1.5, "samples": [{"text": "<hex>", "complete": true}]}.
#include <absl/strings/escaping.h>
#include <absl/time/clock.h>

#include <iostream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "worker/structure/compiled_form.h"
#include "worker/structure/form_matcher.h"

namespace behemoth::worker {
namespace {

using nlohmann::json;

// Every byte, what tokenizers merge, one control token.
std::shared_ptr<const Vocabulary> TestVocabulary() {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  for (const char* merged :
       {"</s>",     "\"",   "\"}",   "\"]",    "\",", "{\"",  "\":",   "\": ", ", ",
        "},",       "]}",   "}}",    "[]",     "{}",  "true", "false", "null", "12",
        "100",      "00",   "0.5",   "-1",     "e5",  "ab",   "the",   " the", "name",
        "\n",       "\n\n", "  ",    "    ",   "\\n", "\\\"", "\\u",   "é",    "日本",
        "\xf0\x9f", "</",   "think", "think>", ">\n", ">{",   ">{\"",  "k>",   ">\n\n",
        "h",        "2024", "-01",   "T1",     "@a",  ".com", "http",  "://"}) {
    tokens.emplace_back(merged);
  }
  const std::vector<uint32_t> controls = {256};
  return *Vocabulary::Make(std::move(tokens), controls, static_cast<int32_t>(tokens.size()));
}

json Sample(const std::shared_ptr<const CompiledForm>& form, int max_tokens, std::mt19937& random) {
  FormMatcher matcher(form, {256});
  TokenMask mask;
  std::string text;
  for (int i = 0; i < max_tokens; ++i) {
    const FormState state = matcher.Fill(&mask);
    if (state == FormState::kComplete) {
      return {{"text", absl::BytesToHexString(text)}, {"complete", true}};
    }
    if (state == FormState::kFailed)
      return {{"text", absl::BytesToHexString(text)}, {"failed", true}};
    std::vector<TokenId> allowed;
    for (TokenId id = 0; id < form->vocabulary().size(); ++id) {
      if (mask[static_cast<size_t>(id) / 32] >> (id % 32) & 1) allowed.push_back(id);
    }
    const TokenId token =
        allowed[std::uniform_int_distribution<size_t>(0, allowed.size() - 1)(random)];
    // The end is as likely as going on, or few texts would ever end.
    const bool may_end = mask[256 / 32] & 1;
    if (may_end && (token == 256 || random() % 2 == 0)) {
      return {{"text", absl::BytesToHexString(text)}, {"complete", true}};
    }
    if (!matcher.Accept(token))
      return {{"text", absl::BytesToHexString(text)}, {"rejected", token}};
    text += form->vocabulary().text(token);
  }
  return {{"text", absl::BytesToHexString(text)}, {"complete", false}};
}

json Answer(const json& asked, const std::shared_ptr<const Vocabulary>& vocabulary,
            std::mt19937& random) {
  const std::string kind = asked["kind"];
  const FormSpec spec = {.kind = kind == "json_schema" ? FormSpec::Kind::kJsonSchema
                                 : kind == "regex"     ? FormSpec::Kind::kRegex
                                                       : FormSpec::Kind::kGrammar,
                         .text = asked["text"],
                         .begins_after = asked.value("begins_after", "")};
  const absl::Time began = absl::Now();
  const auto form = CompiledForm::Compile(spec, vocabulary);
  const double ms = absl::ToDoubleMilliseconds(absl::Now() - began);
  if (!form.ok()) return {{"error", std::string(form.status().message())}, {"ms", ms}};
  json out = {{"ms", ms}, {"bytes", (*form)->bytes()}, {"samples", json::array()}};
  for (int i = 0; i < asked["samples"]; ++i) {
    out["samples"].push_back(Sample(*form, asked["max_tokens"], random));
  }
  return out;
}

}  // namespace
}  // namespace behemoth::worker

int main() {
  std::mt19937 random(1);
  const auto vocabulary = behemoth::worker::TestVocabulary();
  for (std::string line; std::getline(std::cin, line);) {
    std::cout << behemoth::worker::Answer(nlohmann::json::parse(line), vocabulary, random).dump()
              << std::endl;
  }
}
