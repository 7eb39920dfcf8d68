// Every field that a request may hold, in one table: what drives the parser, the API description
// and the tests that enumerate it. Constant data; thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace behemoth::gateway {

enum Endpoints : uint8_t {
  kChatRoute = 1,
  kCompletionRoute = 2,
  kTokenizeRoute = 4,
  kDetokenizeRoute = 8,
  kGenerateRoutes = kChatRoute | kCompletionRoute,
};

enum class FieldKind : uint8_t {
  kBool,
  kInteger,       // a JSON integer in [min, max]; 1.0 is none
  kNumber,        // a JSON number in [min, max], or (min, max] if open_min
  kString,        // at most max bytes
  kStringOrList,  // a string or a list of at most 64 strings, each of 1..max bytes
  kIdList,        // at most max ids, each 0..2^32-1
  kList,
  kObject,
  kAny,  // checked where it is read
};

enum class Support : uint8_t {
  kWorks,
  kNotYet,   // only its neutral values; anything else is a 400 that says so
  kWarned,   // its neutral values silently, anything else named in `warnings`
  kNoEffect  // accepted: it has no effect by its meaning here
};

struct FieldSpec {
  std::string_view name;
  FieldKind kind = FieldKind::kAny;
  uint8_t routes = kGenerateRoutes;
  Support support = Support::kWorks;
  double min = 0;
  double max = 0;
  bool open_min = false;
  std::string_view alias_of;       // empty = this is the field itself
  std::string_view neutral;        // a JSON list; null, false, "", [] and {} always are
  std::string_view default_value;  // JSON; empty = none, or the model's own
  std::string_view use_instead;    // of kNotYet: it will not come, this is there
};

std::span<const FieldSpec> FieldTable();

// Null if the route has no such field.
const FieldSpec* FindField(std::string_view name, uint8_t route);

}  // namespace behemoth::gateway
