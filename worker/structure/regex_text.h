// Regular expressions as JSON text has them. Pure functions, thread-safe.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <string>
#include <string_view>

namespace behemoth::worker {

// `regex` of a whole text, written with what xgrammar reads as everybody does. \d, \w and \s are
// ASCII's. INVALID_ARGUMENT, without a field's name: anchors inside, looking around, back
// references, boundaries, named groups, possessive repetitions, classes of characters beyond ASCII.
absl::StatusOr<std::string> PlainRegex(std::string_view regex);

// INVALID_ARGUMENT: a GBNF grammar with a class that xgrammar would take byte by byte.
absl::Status CheckGrammarClasses(std::string_view grammar);

// `pattern` such that what it matches can stand between the quotes of a JSON string as it is: no
// quote, backslash or control character. Fewer strings than `pattern` matches, never others.
// INVALID_ARGUMENT: as above, or the pattern asks for such a character.
absl::StatusOr<std::string> InsideJsonString(std::string_view pattern);

}  // namespace behemoth::worker
