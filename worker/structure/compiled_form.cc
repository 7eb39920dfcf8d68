#include "worker/structure/compiled_form.h"

#include <absl/strings/str_cat.h>
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

// With one thread nothing is thrown where nobody catches it. No cache: FormCompiler has one.
xgrammar::CompiledGrammar CompileText(const FormSpec& spec, const std::string& text,
                                      const Vocabulary& vocabulary) {
  xgrammar::GrammarCompiler compiler(vocabulary.tokenizer(), /*max_threads=*/1,
                                     /*cache_enabled=*/false);
  switch (spec.kind) {
    case FormSpec::Kind::kJsonSchema:
      if (spec.dumps_spaces) {
        return compiler.CompileGrammar(xgrammar::Grammar::Concat(
            {xgrammar::Grammar::FromEBNF(R"(root ::= " " | "")"),
             xgrammar::Grammar::FromJSONSchema(text, /*any_whitespace=*/false)}));
      }
      return compiler.CompileJSONSchema(text, /*any_whitespace=*/true, std::nullopt, std::nullopt,
                                        /*strict_mode=*/true, /*max_whitespace_cnt=*/32);
    case FormSpec::Kind::kRegex:
      return compiler.CompileRegex(text);
    case FormSpec::Kind::kGrammar:
      return compiler.CompileGrammar(text);
  }
  __builtin_unreachable();
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
    const FormSpec& spec, std::shared_ptr<const Vocabulary> vocabulary) {
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
  uint64_t atoms = 0;
  if (spec.kind == FormSpec::Kind::kJsonSchema) {
    auto schema = ToCompilable(spec.text);
    if (!schema.ok()) return Bad(spec, schema.status().message());
    text = std::move(schema->json);
    atoms = schema->atoms;
  } else if (spec.kind == FormSpec::Kind::kRegex) {
    auto plain = PlainRegex(spec.text);
    if (!plain.ok()) return Bad(spec, plain.status().message());
    text = *std::move(plain);
    atoms = ExpandedAtoms(text, PatternSyntax::kRegex);
  } else {
    absl::Status classes = CheckGrammarClasses(text);
    if (!classes.ok()) return Bad(spec, classes.message());
    atoms = ExpandedAtoms(text, PatternSyntax::kGrammar);
  }
  if (atoms > kMaxFormAtoms) {
    return Bad(spec, absl::StrCat("too large: its repetitions come to ", atoms,
                                  " parts written out, at most ", kMaxFormAtoms));
  }
  try {
    return std::shared_ptr<const CompiledForm>(
        new CompiledForm(spec, vocabulary, CompileText(spec, text, *vocabulary)));
  } catch (const std::exception& error) {
    return Bad(spec, MessageOf(error));
  }
}

CompiledForm::CompiledForm(const FormSpec& spec, std::shared_ptr<const Vocabulary> vocabulary,
                           xgrammar::CompiledGrammar grammar)
    : vocabulary_(std::move(vocabulary)),
      grammar_(std::move(grammar)),
      marker_(spec.begins_after),
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
