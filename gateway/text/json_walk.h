// Follows a JSON text byte by byte and says whether it still can become one. Thread-compatible.
// Source: RFC 8259. UTF-8 is the caller's: what comes in is whole characters.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace behemoth::gateway {

class JsonWalk {
 public:
  static constexpr size_t kMaxDepth = 100;  // objects and lists around a value

  // False: `c` cannot stand here; nothing is taken any more. Only a list or an object is a whole
  // text here: a number alone never ends.
  bool Take(char c);

  size_t depth() const { return open_.size(); }
  bool in_string() const {
    return place_ == Place::kString || place_ == Place::kEscape || place_ == Place::kHex;
  }
  // The string that is read, or was read last, names a member.
  bool string_is_key() const { return string_is_key_; }

 private:
  // What may come next; from kString on inside a string, a number or a word.
  enum class Place : uint8_t {
    kValue,
    kFirstItem,    // a value or ]
    kFirstMember,  // a key or }
    kKey,
    kColon,
    kAfterValue,  // a comma or the end of what is open
    kEnd,         // white space
    kString,
    kEscape,
    kHex,
    kMinus,
    kZero,
    kDigits,
    kPoint,
    kFraction,
    kExponent,
    kExponentSign,
    kExponentDigits,
    kWord,
    kBroken,
  };

  bool Go(Place place);
  bool Value(char c);
  bool String(char c);
  bool Number(char c);
  bool Open(char c);
  bool Close(char c);
  Place AfterValue() const { return open_.empty() ? Place::kEnd : Place::kAfterValue; }

  Place place_ = Place::kValue;
  bool string_is_key_ = false;
  int hex_digits_ = 0;     // read of \uXXXX
  const char* word_ = "";  // what is left of true, false or null
  std::string open_;       // '[' or '{' each
};

}  // namespace behemoth::gateway
