// A form ready to be matched: xgrammar's tables, and what the text in front of it may be.
// Immutable, shared, thread-safe.
#pragma once

#include <absl/status/statusor.h>
#include <xgrammar/compiler.h>
#include <xgrammar/grammar.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "worker/schedule/form.h"
#include "worker/structure/vocabulary.h"

namespace behemoth::worker {

struct FormSpec {
  enum class Kind { kJsonSchema, kRegex, kGrammar };
  Kind kind = Kind::kJsonSchema;
  std::string text;
  std::string begins_after;  // empty = from the first token
  // A control token that the form begins behind; the text may end before it. Without begins_after.
  std::optional<TokenId> begins_after_id;
  bool dumps_spaces = false;  // of a JSON Schema: white space as json.dumps writes it
  bool operator==(const FormSpec&) const = default;
};

// Bounds of a form; what is over them is INVALID_ARGUMENT (proto/README.md).
constexpr size_t kMaxFormBytes = 64 << 10;
constexpr uint64_t kMaxFormAtoms = 1 << 19;  // see Expand
constexpr uint64_t kMaxFormOperators = 2048;
constexpr int kMaxFormDepth = 256;  // of groups: the library parses recursively
// Of the library's grammar: what compiling takes is some seconds at most within these.
constexpr uint64_t kMaxFormRules = 1024;
constexpr uint64_t kMaxFormWork = 150'000'000;  // rules times their text's bytes
constexpr size_t kMaxMarkerBytes = 64;

// Finds the first occurrence of a text in a stream of bytes (Knuth, Morris, Pratt). Immutable.
class Marker {
 public:
  explicit Marker(std::string text);
  size_t size() const { return text_.size(); }
  // From `matched` bytes of it on, through `bytes`. npos and *matched moved on: not complete yet.
  // Otherwise the number of bytes of which the last one completes it.
  size_t Find(std::string_view bytes, size_t* matched) const;

 private:
  std::string text_;
  std::vector<size_t> fallback_;
};

// Between a marker and its form: what models put there ("</think>\n\n") and no form wants.
std::string_view WithoutLeadingSpace(std::string_view text);

class CompiledForm {
 public:
  // INVALID_ARGUMENT "structure.json_schema: ...", "structure.begins_after: ...". Takes
  // milliseconds to seconds, less with more threads (at least 1).
  static absl::StatusOr<std::shared_ptr<const CompiledForm>> Compile(
      const FormSpec& spec, std::shared_ptr<const Vocabulary> vocabulary, int threads = 1);

  const Vocabulary& vocabulary() const { return *vocabulary_; }
  const xgrammar::CompiledGrammar& grammar() const { return grammar_; }
  // Its white space is free, so somebody has to bound it.
  bool is_json() const { return is_json_; }
  const Marker& marker() const { return marker_; }
  std::optional<TokenId> begins_after_id() const { return begins_after_id_; }
  // In front of the form, `matched` bytes into the marker: all tokens but those that complete the
  // marker and go on with what the form does not begin with.
  const TokenMask& free_mask(size_t matched) const { return free_masks_[matched]; }
  size_t bytes() const;

 private:
  CompiledForm(const FormSpec& spec, std::shared_ptr<const Vocabulary> vocabulary,
               xgrammar::CompiledGrammar grammar);
  void ComputeFreeMasks(char last);

  const std::shared_ptr<const Vocabulary> vocabulary_;
  const xgrammar::CompiledGrammar grammar_;
  const Marker marker_;
  const bool is_json_;
  const std::optional<TokenId> begins_after_id_;
  std::vector<TokenMask> free_masks_;  // [marker bytes]
};

}  // namespace behemoth::worker
