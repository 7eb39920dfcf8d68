#include "worker/structure/number_text.h"

#include <absl/strings/ascii.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <absl/strings/string_view.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <numeric>
#include <vector>

namespace behemoth::worker {
namespace {

constexpr int kExactDigits = 15;  // of a decimal that a double tells from every other
constexpr int kMostDigits = 18;   // of an int64_t
constexpr int kUsualFraction = 6;

constexpr int64_t Power(int exponent) {
  int64_t power = 1;
  for (int i = 0; i < exponent; ++i) power *= 10;
  return power;
}

int DigitsOf(int64_t value) { return static_cast<int>(absl::StrCat(std::abs(value)).size()); }

Decimal Reduced(Decimal decimal) {
  for (; decimal.digits != 0 && decimal.digits % 10 == 0; ++decimal.exponent) decimal.digits /= 10;
  return decimal;
}

// In front of the point, at least one.
int WholeDigits(const Decimal& decimal) {
  return decimal.digits == 0 ? 1 : std::max(DigitsOf(decimal.digits) + decimal.exponent, 1);
}

bool IsFar(const Decimal& decimal) { return WholeDigits(decimal) > kExactDigits; }

// decimal * 10^fraction, rounded up or down; from 10^18 on the same, beyond every range's end.
int64_t Scaled(const Decimal& decimal, int fraction, bool up) {
  const int shift = decimal.exponent + fraction;
  if (decimal.digits == 0) return 0;
  if (DigitsOf(decimal.digits) + shift > kMostDigits) {
    return (decimal.digits < 0 ? -2 : 2) * Power(kMostDigits);
  }
  if (shift >= 0) return decimal.digits * Power(shift);
  const int64_t divisor = Power(std::min(-shift, kMostDigits));
  const int64_t quotient = decimal.digits / divisor;
  const bool exact = quotient * divisor == decimal.digits;
  if (exact || (decimal.digits < 0) == up) return quotient;
  return up ? quotient + 1 : quotient - 1;
}

// Numbers are counted in units of the last digit behind the point: all of `least`..`most`.
struct Range {
  int fraction = 0;  // digits behind the point
  int64_t least = 0, most = 0;
};

int FractionOf(const NumberRules& rules) {
  if (rules.integer) return 0;
  int whole = 1, behind = kUsualFraction;
  for (const auto& bound :
       {rules.minimum, rules.exclusive_minimum, rules.maximum, rules.exclusive_maximum}) {
    if (!bound || IsFar(*bound)) continue;
    whole = std::max(whole, WholeDigits(*bound));
    behind = std::max(behind, -Reduced(*bound).exponent);
  }
  return std::min(kExactDigits - whole, behind);
}

Range RangeOf(const NumberRules& rules, int fraction) {
  const int64_t far = Power(std::min(kExactDigits + fraction, kMostDigits));
  Range range{.fraction = fraction, .least = -far, .most = far};
  const auto at_least = [&](int64_t bound) { range.least = std::max(range.least, bound); };
  const auto at_most = [&](int64_t bound) { range.most = std::min(range.most, bound); };
  if (rules.minimum) at_least(Scaled(*rules.minimum, fraction, /*up=*/true));
  if (rules.exclusive_minimum) at_least(Scaled(*rules.exclusive_minimum, fraction, false) + 1);
  if (rules.maximum) at_most(Scaled(*rules.maximum, fraction, /*up=*/false));
  if (rules.exclusive_maximum) at_most(Scaled(*rules.exclusive_maximum, fraction, true) - 1);
  return range;
}

std::string Digits(absl::string_view of, int least, int most) {
  if (most == 0) return "";
  if (least == 1 && most == 1) return absl::StrCat(" ", of);
  if (least == most) return absl::StrCat(" ", of, "{", most, "}");
  return absl::StrCat(" ", of, "{", least, ",", most, "}");
}

// The texts of numbers that have equally many digits in front of the point.
class EqualLength {
 public:
  // `low` and `high` with all digits, behind the point too.
  EqualLength(std::string sign, std::string low, std::string high, int fraction)
      : sign_(std::move(sign)),
        low_(std::move(low)),
        high_(std::move(high)),
        fraction_(static_cast<size_t>(fraction)),
        whole_(low_.size() - fraction_) {}

  std::vector<std::string> Texts() {
    Walk("", true, true);
    return std::move(texts_);
  }

 private:
  static bool IsAll(char digit, const std::string& text, size_t from) {
    return text.find_first_not_of(digit, from) == std::string::npos;
  }

  // Behind `digits`, which are those of `low` or `high` as far as they are held to them.
  void Walk(const std::string& digits, bool low, bool high) {
    const size_t at = digits.size();
    const bool from_zeros = !low || IsAll('0', low_, at);
    if (from_zeros && (!high || IsAll('9', high_, at))) {
      return Add(digits, "", Rest(at, "[0-9]"));
    }
    if (at >= whole_ && high && IsAll('0', high_, at)) {
      return Add(digits, "", Rest(at, "\"0\""));
    }
    if (at >= whole_ && from_zeros) Add(digits, "", "");
    const char first = low ? low_[at] : '0', last = high ? high_[at] : '9';
    if (first == last) return Walk(digits + first, low, high);
    // What follows the first digit, or the last, may be anything too where the rest is no bound.
    const bool holds_low = low && !IsAll('0', low_, at + 1);
    const bool holds_high = high && !IsAll('9', high_, at + 1);
    if (holds_low) Walk(digits + first, true, false);
    AddFree(digits, static_cast<char>(first + holds_low), static_cast<char>(last - holds_high));
    if (holds_high) Walk(digits + last, false, true);
  }

  void AddFree(const std::string& digits, char from, char to) {
    const std::string rest = Rest(digits.size() + 1, "[0-9]");
    if (from == to) Add(digits + from, "", rest);
    if (from >= to) return;
    Add(digits, absl::StrCat("[", std::string(1, from), "-", std::string(1, to), "]"), rest);
  }

  // Whatever may follow the first `at` digits.
  std::string Rest(size_t at, absl::string_view digit) const {
    const auto count = [](size_t digits) { return static_cast<int>(digits); };
    if (at > whole_) return Digits(digit, 0, count(low_.size() - at));
    std::string rest = Digits(digit, count(whole_ - at), count(whole_ - at));
    if (fraction_ > 0) absl::StrAppend(&rest, " (\".\"", Digits(digit, 1, count(fraction_)), ")?");
    return rest;
  }

  void Add(const std::string& digits, absl::string_view one, absl::string_view rest) {
    std::string text = sign_ + digits.substr(0, whole_);
    const bool in_fraction = digits.size() > whole_ || (digits.size() == whole_ && !one.empty());
    if (in_fraction) absl::StrAppend(&text, ".", digits.substr(std::min(whole_, digits.size())));
    if (!text.empty()) text = absl::StrCat("\"", text, "\"");
    absl::StrAppend(&text, one.empty() ? "" : " ", one, rest);
    texts_.emplace_back(absl::StripLeadingAsciiWhitespace(text));
  }

  const std::string sign_, low_, high_;
  const size_t fraction_, whole_;
  std::vector<std::string> texts_;
};

// Of 0 <= least <= most.
void AddTexts(const std::string& sign, const Range& range, std::vector<std::string>& out) {
  const int64_t unit = Power(range.fraction);
  const int shortest = DigitsOf(range.least / unit), longest = DigitsOf(range.most / unit);
  const auto add = [&](int whole, int64_t least, int64_t most) {
    const auto digits = [&](int64_t value) {
      const std::string text = absl::StrCat(value);
      const auto width = static_cast<size_t>(whole + range.fraction);
      return std::string(width - text.size(), '0') + text;
    };
    for (std::string& text :
         EqualLength(sign, digits(least), digits(most), range.fraction).Texts()) {
      out.push_back(std::move(text));
    }
  };
  if (shortest == longest) return add(shortest, range.least, range.most);
  add(shortest, range.least, Power(shortest + range.fraction) - 1);
  if (longest - shortest > 1) {
    const std::string digits = Digits("[0-9]", shortest, longest - 2);
    const std::string fraction =
        range.fraction == 0 ? ""
                            : absl::StrCat(" (\".\"", Digits("[0-9]", 1, range.fraction), ")?");
    out.push_back(absl::StrCat(sign.empty() ? "" : "\"-\" ", "[1-9]", digits, fraction));
  }
  add(longest, Power(longest - 1 + range.fraction), range.most);
}

// Each followed by `zeros` zeros, but for 0.
std::string TextsOf(const Range& range, int zeros) {
  std::vector<std::string> texts;
  if (zeros > 0 && range.least <= 0 && range.most >= 0) texts.emplace_back("\"0\"");
  const std::string behind = zeros == 0 ? "" : absl::StrCat(" \"", std::string(zeros, '0'), "\"");
  const auto add = [&](const std::string& sign, int64_t least, int64_t most) {
    const size_t before = texts.size();
    if (least <= most) AddTexts(sign, {range.fraction, least, most}, texts);
    for (size_t i = before; i < texts.size(); ++i) texts[i] += behind;
  };
  // A decimal between negative ones may be "-0.0".
  const int64_t nearest = range.fraction > 0 && range.least < 0 ? 0 : 1;
  add("-", std::max(-range.most, nearest), -range.least);
  add("", std::max<int64_t>(range.least, zeros > 0 ? 1 : 0), range.most);
  return absl::StrJoin(texts, " | ");
}

std::string TextOf(int64_t value, int fraction) {
  std::string digits = absl::StrCat(std::abs(value));
  const auto behind = static_cast<size_t>(fraction);
  if (digits.size() <= behind) digits.insert(0, behind + 1 - digits.size(), '0');
  if (behind > 0) {
    digits.insert(digits.size() - behind, 1, '.');
    digits.erase(digits.find_last_not_of('0') + 1);
    if (digits.back() == '.') digits.pop_back();
  }
  return absl::StrCat("\"", value < 0 ? "-" : "", digits, "\"");
}

absl::Status Bad(absl::string_view what) { return absl::InvalidArgumentError(what); }

absl::StatusOr<std::string> Multiples(const NumberRules& rules) {
  Decimal step = Reduced(*rules.multiple_of);
  if (step.digits <= 0) return Bad("multipleOf must be over 0");
  if (rules.integer && step.exponent < 0) {
    // Of those the integers: n * p / q is one where q divides n, if p and q have no common divisor.
    const int shift = std::min(-step.exponent, kMostDigits);
    step = Reduced({step.digits / std::gcd(step.digits, Power(shift)), 0});
  }
  const int fraction = std::max(-step.exponent, 0);
  if (fraction > FractionOf(rules)) return Bad("multipleOf is too fine for its bounds");
  Range range = RangeOf(rules, fraction);
  const int64_t unit = Scaled(step, fraction, /*up=*/true);
  // Towards zero is inwards.
  const int64_t from = range.least / unit + (range.least > 0 && range.least % unit != 0);
  const int64_t to = range.most / unit - (range.most < 0 && range.most % unit != 0);
  if (from > to) return Bad("no number fits");
  if (step.digits == 1) return TextsOf({fraction, from, to}, std::max(step.exponent, 0));
  if (to - from >= kMaxMultiples) {
    return Bad(
        absl::StrCat("\"multipleOf\" is supported of a power of ten, or with bounds that at ",
                     "most ", kMaxMultiples, " multiples fit"));
  }
  std::vector<std::string> texts;
  for (int64_t i = from; i <= to; ++i) texts.push_back(TextOf(i * unit, fraction));
  return absl::StrJoin(texts, " | ");
}

}  // namespace

Decimal DecimalOf(double value) {
  std::array<char, 32> text;  // "-d.ddddddddddddddde+ddd"
  const auto [end, error] =
      std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::scientific);
  const absl::string_view written(text.data(), static_cast<size_t>(end - text.data()));
  const size_t e = written.find('e');
  std::string mantissa(written.substr(0, e));
  Decimal out;
  if (!absl::SimpleAtoi(written.substr(e + 1), &out.exponent)) return out;
  if (const size_t point = mantissa.find('.'); point != std::string::npos) {
    out.exponent -= static_cast<int>(mantissa.size() - point) - 1;
    mantissa.erase(point, 1);
  }
  if (!absl::SimpleAtoi(mantissa, &out.digits)) return {};
  return out;
}

absl::StatusOr<std::string> NumberText(const NumberRules& rules) {
  if (rules.multiple_of) return Multiples(rules);
  const Range range = RangeOf(rules, FractionOf(rules));
  if (range.least > range.most) return Bad("no number fits");
  return TextsOf(range, 0);
}

}  // namespace behemoth::worker
