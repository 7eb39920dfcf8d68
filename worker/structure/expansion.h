// How large a pattern becomes when its repetitions are written out: what compiling it costs, told
// before it is tried. Pure function, thread-safe, linear time.
#pragma once

#include <cstdint>
#include <string_view>

namespace behemoth::worker {

enum class PatternSyntax { kRegex, kGrammar };  // a grammar's literals stand in quotes

struct Expansion {
  uint64_t atoms = 0;      // characters and classes; {m,n} as max(m, n) copies of what it repeats
  uint64_t operators = 0;  // groups, repetitions, rules of a grammar, as they are written
  int depth = 0;           // of groups in each other
};

// Saturates; what is no pattern gives some numbers: the compiler says what is wrong.
Expansion Expand(std::string_view pattern, PatternSyntax syntax);

}  // namespace behemoth::worker
