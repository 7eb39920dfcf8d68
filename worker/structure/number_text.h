// Numbers within bounds, as an expression of the grammar of their JSON texts. Pure function,
// thread-safe.
//
// Texts are decimals without an exponent. Near a bound they have at most 15 significant digits, so
// that two different ones are different doubles too: what is within the bounds as a decimal stays
// within them for whoever reads doubles.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <string>

namespace behemoth::worker {

// digits * 10^exponent, exactly.
struct Decimal {
  int64_t digits = 0;
  int exponent = 0;
};

// The shortest decimal that reads as `value`, which is finite: what its author wrote.
Decimal DecimalOf(double value);

struct NumberRules {
  bool integer = false;
  std::optional<Decimal> minimum, exclusive_minimum, maximum, exclusive_maximum;
  std::optional<Decimal> multiple_of;  // > 0
};

// What there is of them: integers up to 10^15 from zero; decimals up to 10^12 at least, with 6
// digits behind the point, or as many as a bound has; multiples of a power of ten, of others at
// most kMaxMultiples.
constexpr int64_t kMaxMultiples = 1024;

// In xgrammar's EBNF, without a rule's name. INVALID_ARGUMENT: no number fits, or too many
// multiples do.
absl::StatusOr<std::string> NumberText(const NumberRules& rules);

}  // namespace behemoth::worker
