#include "gateway/text/json_walk.h"

#include <absl/strings/ascii.h>

#include <string_view>

namespace behemoth::gateway {
namespace {

bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

}  // namespace

bool JsonWalk::Go(Place place) {
  place_ = place;
  return place != Place::kBroken;
}

bool JsonWalk::Take(char c) {
  if (place_ == Place::kBroken) return false;
  if (in_string()) return String(c);
  if (place_ == Place::kWord) {
    if (c != *word_) return Go(Place::kBroken);
    return *++word_ != '\0' || Go(AfterValue());
  }
  if (place_ >= Place::kMinus) return Number(c);
  if (IsSpace(c)) return true;
  switch (place_) {
    case Place::kValue:
      return Value(c);
    case Place::kFirstItem:
      return c == ']' ? Close(c) : Value(c);
    case Place::kFirstMember:
    case Place::kKey:
      if (c == '}' && place_ == Place::kFirstMember) return Close(c);
      string_is_key_ = true;
      return Go(c == '"' ? Place::kString : Place::kBroken);
    case Place::kColon:
      return Go(c == ':' ? Place::kValue : Place::kBroken);
    case Place::kAfterValue:
      if (c == ',') return Go(open_.back() == '{' ? Place::kKey : Place::kValue);
      return Close(c);
    default:
      return Go(Place::kBroken);
  }
}

bool JsonWalk::Value(char c) {
  switch (c) {
    case '{':
    case '[':
      return Open(c);
    case '"':
      string_is_key_ = false;
      return Go(Place::kString);
    case '-':
      return Go(Place::kMinus);
    case '0':
      return Go(Place::kZero);
    case 't':
      word_ = "rue";
      return Go(Place::kWord);
    case 'f':
      word_ = "alse";
      return Go(Place::kWord);
    case 'n':
      word_ = "ull";
      return Go(Place::kWord);
    default:
      return Go(absl::ascii_isdigit(c) ? Place::kDigits : Place::kBroken);
  }
}

bool JsonWalk::Open(char c) {
  if (open_.size() >= kMaxDepth) return Go(Place::kBroken);
  open_ += c;
  return Go(c == '{' ? Place::kFirstMember : Place::kFirstItem);
}

bool JsonWalk::Close(char c) {
  if (c != (open_.back() == '{' ? '}' : ']')) return Go(Place::kBroken);
  open_.pop_back();
  return Go(AfterValue());
}

bool JsonWalk::String(char c) {
  constexpr std::string_view kEscapes = "\"\\/bfnrt";
  if (place_ == Place::kHex) {
    if (!absl::ascii_isxdigit(c)) return Go(Place::kBroken);
    return ++hex_digits_ < 4 || Go(Place::kString);
  }
  if (place_ == Place::kEscape) {
    hex_digits_ = 0;
    if (c == 'u') return Go(Place::kHex);
    return Go(kEscapes.find(c) != kEscapes.npos ? Place::kString : Place::kBroken);
  }
  if (c == '\\') return Go(Place::kEscape);
  if (c == '"') return Go(string_is_key_ ? Place::kColon : AfterValue());
  return static_cast<unsigned char>(c) >= 0x20 || Go(Place::kBroken);
}

// Its end is told by what comes behind it.
bool JsonWalk::Number(char c) {
  const bool digit = absl::ascii_isdigit(c);
  const bool whole = place_ == Place::kZero || place_ == Place::kDigits;
  if (place_ == Place::kMinus && digit) return Go(c == '0' ? Place::kZero : Place::kDigits);
  if (digit && place_ != Place::kZero && place_ != Place::kMinus) {
    if (place_ == Place::kPoint) place_ = Place::kFraction;
    if (place_ == Place::kExponent || place_ == Place::kExponentSign) {
      place_ = Place::kExponentDigits;
    }
    return true;
  }
  if (whole && c == '.') return Go(Place::kPoint);
  if ((whole || place_ == Place::kFraction) && (c == 'e' || c == 'E')) return Go(Place::kExponent);
  if (place_ == Place::kExponent && (c == '+' || c == '-')) return Go(Place::kExponentSign);
  if (!whole && place_ != Place::kFraction && place_ != Place::kExponentDigits) {
    return Go(Place::kBroken);
  }
  place_ = AfterValue();
  return Take(c);
}

}  // namespace behemoth::gateway
