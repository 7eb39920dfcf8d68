// A JSON Schema -> one that xgrammar turns into exactly valid texts. Pure function, thread-safe.
//
// xgrammar passes over what it does not know, and over neighbours of $ref, enum and anyOf; here
// each such schema is refused instead. What remains produces valid values only, not every one of
// them: README.md lists the keywords and what is left out.
#pragma once

#include <absl/status/statusor.h>

#include <string>
#include <string_view>
#include <vector>

#include "worker/structure/expansion.h"

namespace behemoth::worker {

// A rule of the library's grammar, which the schema's language cannot say.
struct NumberRule {
  std::string name;  // stands in the schema as a constant, and nowhere else
  std::string text;  // EBNF
};

struct CompilableSchema {
  std::string json;
  std::vector<NumberRule> numbers;
  Expansion size;  // as Expand counts
};

// INVALID_ARGUMENT, without the field's name but with the path in the schema.
absl::StatusOr<CompilableSchema> ToCompilable(std::string_view schema);

}  // namespace behemoth::worker
