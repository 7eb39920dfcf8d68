// How large a pattern becomes when its repetitions are written out: what compiling it costs, told
// before it is tried. Pure function, thread-safe, linear time.
#pragma once

#include <cstdint>
#include <string_view>

namespace behemoth::worker {

enum class PatternSyntax { kRegex, kGrammar };  // a grammar's literals stand in quotes

// Atoms (characters, classes) of `pattern` with every {m,n} counted as max(m, n) copies, nested
// ones multiplied. Saturates; what is no pattern gives some number: the compiler says what is
// wrong.
uint64_t ExpandedAtoms(std::string_view pattern, PatternSyntax syntax);

}  // namespace behemoth::worker
