#include "worker/structure/compiled_form.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>
#include <xgrammar/matcher.h>

#include <algorithm>
#include <exception>
#include <optional>
#include <utility>

#include "worker/structure/expansion.h"
#include "worker/structure/regex_text.h"
#include "worker/structure/schema.h"

namespace behemoth::worker {
namespace {

const char* FieldOf(FormSpec::Kind kind) {
  return kind == FormSpec::Kind::kJsonSchema ? "structure.json_schema"
         : kind == FormSpec::Kind::kRegex    ? "structure.regex"
                                             : "structure.grammar";
}

absl::Status Bad(const FormSpec& spec, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(FieldOf(spec.kind), ": ", what.substr(0, 1024)));
}

// Behind xgrammar's own file, line and time.
absl::string_view MessageOf(const std::exception& error) {
  const absl::string_view what = error.what();
  const size_t colon = what.find(": ");
  return colon == absl::string_view::npos ? what : what.substr(colon + 2);
}

// The grammar of a schema with the rules that its constants stand for.
xgrammar::Grammar WithNumbers(const xgrammar::Grammar& grammar,
                              const std::vector<NumberRule>& numbers) {
  if (numbers.empty()) return grammar;
  std::vector<std::pair<std::string, std::string>> names;
  for (const NumberRule& rule : numbers) {
    names.emplace_back(absl::StrCat(R"("\")", rule.name, R"(\"")"), rule.name);
  }
  std::string text = absl::StrReplaceAll(grammar.ToString(), names);
  for (const NumberRule& rule : numbers) {
    absl::StrAppend(&text, "\n", rule.name, " ::= ", rule.text);
  }
  return xgrammar::Grammar::FromEBNF(text);
}

// A schema's white space is unbounded here and bounded in FormMatcher: written out it would be most
// of the grammar.
xgrammar::Grammar GrammarOf(const FormSpec& spec, const std::string& text,
                            const std::vector<NumberRule>& numbers) {
  switch (spec.kind) {
    case FormSpec::Kind::kJsonSchema:
      if (spec.dumps_spaces) {
        return xgrammar::Grammar::Concat(
            {xgrammar::Grammar::FromEBNF(R"(root ::= " " | "")"),
             WithNumbers(xgrammar::Grammar::FromJSONSchema(text, /*any_whitespace=*/false),
                         numbers)});
      }
      return WithNumbers(
          xgrammar::Grammar::FromJSONSchema(text, /*any_whitespace=*/true, std::nullopt,
                                            std::nullopt, /*strict_mode=*/true,
                                            /*max_whitespace_cnt=*/std::nullopt),
          numbers);
    case FormSpec::Kind::kRegex:
      return xgrammar::Grammar::FromRegex(text);
    case FormSpec::Kind::kGrammar:
      return xgrammar::Grammar::FromEBNF(text);
  }
  __builtin_unreachable();
}

// Compiling takes time by the number of rules and by their length.
absl::Status CheckWork(const xgrammar::Grammar& grammar) {
  const std::string text = grammar.ToString();
  const auto rules = static_cast<uint64_t>(std::count(text.begin(), text.end(), '\n'));
  if (rules <= kMaxFormRules && rules * text.size() <= kMaxFormWork) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("too large: it comes to ", rules, " rules of ", text.size(), " bytes"));
}

// The library's threads make the masks of a grammar that this thread has made fit for them: they
// throw for its own contradictions alone. No cache: FormCompiler has one.
xgrammar::CompiledGrammar CompileGrammar(const xgrammar::Grammar& grammar,
                                         const Vocabulary& vocabulary, int threads) {
  xgrammar::GrammarCompiler compiler(vocabulary.tokenizer(), threads, /*cache_enabled=*/false);
  return compiler.CompileGrammar(grammar);
}

absl::Status CheckSize(const Expansion& size) {
  if (size.depth > kMaxFormDepth) {
    return absl::InvalidArgumentError(
        absl::StrCat("groups are nested ", size.depth, " deep, at most ", kMaxFormDepth));
  }
  if (size.atoms > kMaxFormAtoms) {
    return absl::InvalidArgumentError(absl::StrCat("too large: its repetitions come to ",
                                                   size.atoms, " parts written out, at most ",
                                                   kMaxFormAtoms));
  }
  if (size.operators > kMaxFormOperators) {
    return absl::InvalidArgumentError(absl::StrCat("too large: ", size.operators,
                                                   " groups, repetitions and rules, at most ",
                                                   kMaxFormOperators));
  }
  return absl::OkStatus();
}

}  // namespace

Marker::Marker(std::string text) : text_(std::move(text)), fallback_(text_.size() + 1, 0) {
  for (size_t i = 1, k = 0; i < text_.size(); ++i) {
    while (k > 0 && text_[i] != text_[k]) k = fallback_[k];
    if (text_[i] == text_[k]) ++k;
    fallback_[i + 1] = k;
  }
}

size_t Marker::Find(std::string_view bytes, size_t* matched) const {
  size_t k = *matched;
  for (size_t i = 0; i < bytes.size(); ++i) {
    while (k > 0 && bytes[i] != text_[k]) k = fallback_[k];
    if (bytes[i] == text_[k]) ++k;
    if (k == text_.size()) return i + 1;
  }
  *matched = k;
  return std::string_view::npos;
}

std::string_view WithoutLeadingSpace(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
  return text;
}

absl::StatusOr<std::shared_ptr<const CompiledForm>> CompiledForm::Compile(
    const FormSpec& spec, std::shared_ptr<const Vocabulary> vocabulary, int threads) {
  if (spec.text.size() > kMaxFormBytes) {
    return Bad(spec, absl::StrCat("more than ", kMaxFormBytes, " bytes"));
  }
  if (spec.begins_after.size() > kMaxMarkerBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("structure.begins_after: more than ", kMaxMarkerBytes, " bytes"));
  }
  if (const auto id = spec.begins_after_id) {
    const bool known = *id >= 0 && *id < vocabulary->size() && vocabulary->text(*id).empty();
    if (!known || !spec.begins_after.empty()) {
      return absl::InvalidArgumentError(
          "structure.begins_after_id: must be a control token's, without begins_after");
    }
  }
  std::string text = spec.text;
  std::vector<NumberRule> numbers;
  Expansion size;
  if (spec.kind == FormSpec::Kind::kJsonSchema) {
    auto schema = ToCompilable(spec.text);
    if (!schema.ok()) return Bad(spec, schema.status().message());
    text = std::move(schema->json);
    numbers = std::move(schema->numbers);
    size = schema->size;
  } else if (spec.kind == FormSpec::Kind::kRegex) {
    auto plain = PlainRegex(spec.text);
    if (!plain.ok()) return Bad(spec, plain.status().message());
    text = *std::move(plain);
    size = Expand(text, PatternSyntax::kRegex);
  } else {
    absl::Status classes = CheckGrammarClasses(text);
    if (!classes.ok()) return Bad(spec, classes.message());
    size = Expand(text, PatternSyntax::kGrammar);
  }
  if (absl::Status bad = CheckSize(size); !bad.ok()) return Bad(spec, bad.message());
  try {
    const xgrammar::Grammar grammar = GrammarOf(spec, text, numbers);
    if (absl::Status bad = CheckWork(grammar); !bad.ok()) return Bad(spec, bad.message());
    return std::shared_ptr<const CompiledForm>(
        new CompiledForm(spec, vocabulary, CompileGrammar(grammar, *vocabulary, threads)));
  } catch (const std::exception& error) {
    return Bad(spec, MessageOf(error));
  }
}

CompiledForm::CompiledForm(const FormSpec& spec, std::shared_ptr<const Vocabulary> vocabulary,
                           xgrammar::CompiledGrammar grammar)
    : vocabulary_(std::move(vocabulary)),
      grammar_(std::move(grammar)),
      marker_(spec.begins_after),
      is_json_(spec.kind == FormSpec::Kind::kJsonSchema),
      begins_after_id_(spec.begins_after_id) {
  if (marker_.size() > 0) ComputeFreeMasks(spec.begins_after.back());
}

void CompiledForm::ComputeFreeMasks(char last) {
  free_masks_.assign(marker_.size(), TokenMask(vocabulary_->mask_words(), ~uint32_t{0}));
  if (vocabulary_->size() % 32 != 0) {
    for (TokenMask& mask : free_masks_) mask.back() = (1u << (vocabulary_->size() % 32)) - 1;
  }
  xgrammar::GrammarMatcher matcher(grammar_);
  for (TokenId id = 0; id < vocabulary_->size(); ++id) {
    const std::string& text = vocabulary_->text(id);
    if (text.find(last) == std::string::npos) continue;  // completes nothing
    for (size_t state = 0; state < marker_.size(); ++state) {
      size_t matched = state;
      const size_t end = marker_.Find(text, &matched);
      if (end == std::string_view::npos || end == text.size()) continue;
      const std::string behind(WithoutLeadingSpace(std::string_view(text).substr(end)));
      if (behind.empty()) continue;
      if (WalkUtf8(kUtf8Start, behind) != kUtf8Broken && matcher.AcceptString(behind)) {
        matcher.Rollback(1);
      } else {
        free_masks_[state][static_cast<size_t>(id) / 32] &= ~(1u << (id % 32));
      }
    }
  }
}

size_t CompiledForm::bytes() const {
  return sizeof(*this) + grammar_.MemorySizeBytes() +
         free_masks_.size() * vocabulary_->mask_words() * sizeof(uint32_t);
}

}  // namespace behemoth::worker
