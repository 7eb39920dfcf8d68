#include "gateway/api/json_writer.h"

#include <charconv>
#include <cmath>
#include <cstdint>

namespace behemoth::gateway {
namespace {

// Bytes of the valid UTF-8 character that begins at text[at]; 0 = none does (RFC 3629).
size_t ValidCharacter(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) {
    return at + i < text.size() ? static_cast<uint8_t>(text[at + i]) : uint8_t{0};
  };
  const auto tail = [&](size_t i) { return (byte(i) & 0xC0) == 0x80; };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead < 0xE0) return tail(1) ? 2 : 0;
  if (lead >= 0xE0 && lead < 0xF0) {
    const bool shortest = lead != 0xE0 || byte(1) >= 0xA0;
    const bool surrogate = lead == 0xED && byte(1) >= 0xA0;
    return tail(1) && tail(2) && shortest && !surrogate ? 3 : 0;
  }
  if (lead >= 0xF0 && lead < 0xF5) {
    const bool shortest = lead != 0xF0 || byte(1) >= 0x90;
    const bool too_large = lead == 0xF4 && byte(1) >= 0x90;
    return tail(1) && tail(2) && tail(3) && shortest && !too_large ? 4 : 0;
  }
  return 0;
}

void AppendEscaped(char c, std::string& out) {
  constexpr char kHex[] = "0123456789abcdef";
  switch (c) {
    case '"':
      out += "\\\"";
      return;
    case '\\':
      out += "\\\\";
      return;
    case '\n':
      out += "\\n";
      return;
    case '\r':
      out += "\\r";
      return;
    case '\t':
      out += "\\t";
      return;
    default:
      out += "\\u00";
      out.push_back(kHex[static_cast<uint8_t>(c) >> 4]);
      out.push_back(kHex[c & 15]);
  }
}

template <typename Real>
void AppendReal(Real value, std::string& out) {
  if (!std::isfinite(value)) {
    out += "-9999.0";
    return;
  }
  char text[40];
  const auto end = std::to_chars(text, text + sizeof text, value).ptr;
  out.append(text, end);
}

}  // namespace

void AppendJsonString(std::string_view text, std::string& out) {
  out.push_back('"');
  size_t plain = 0;  // begin of the run not yet copied
  for (size_t i = 0; i < text.size();) {
    const auto byte = static_cast<uint8_t>(text[i]);
    if (byte < 0x80 && byte >= 0x20 && byte != '"' && byte != '\\' && byte != 0x7F) {
      ++i;
      continue;
    }
    const size_t length = ValidCharacter(text, i);
    if (length > 1) {
      i += length;
      continue;
    }
    out.append(text, plain, i - plain);
    if (length == 1) {
      AppendEscaped(text[i], out);
    } else {
      out += "\xEF\xBF\xBD";
    }
    plain = ++i;
  }
  out.append(text, plain, text.size() - plain);
  out.push_back('"');
}

void AppendJsonNumber(double value, std::string& out) { AppendReal(value, out); }
void AppendJsonNumber(float value, std::string& out) { AppendReal(value, out); }

}  // namespace behemoth::gateway
