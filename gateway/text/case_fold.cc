#include "gateway/text/case_fold.h"

#include <clocale>
#include <cwctype>

#include "proto/support/check.h"

namespace behemoth::gateway {
namespace {

locale_t Utf8Locale() {
  // glibc has it built in since 2.35: no file is needed.
  static const locale_t locale = [] {
    const locale_t made = newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
    BEHEMOTH_CHECK(made != nullptr, "the C library has no C.UTF-8 locale");
    return made;
  }();
  return locale;
}

// Down after up: a letter whose capital another one shares (final sigma, long s) folds with it.
// Dotted capital I and dotless i have no simple folding (CaseFolding.txt), whatever the library
// says.
char32_t Fold(char32_t c) {
  if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
  if (c == 0x130 || c == 0x131) return c;
  const locale_t locale = Utf8Locale();
  return static_cast<char32_t>(towlower_l(towupper_l(static_cast<wint_t>(c), locale), locale));
}

void AppendUtf8(char32_t c, std::string& out) {
  const auto tail = [&](int shift) {
    out.push_back(static_cast<char>(0x80 | ((c >> shift) & 0x3F)));
  };
  if (c < 0x80) {
    out.push_back(static_cast<char>(c));
  } else if (c < 0x800) {
    out.push_back(static_cast<char>(0xC0 | (c >> 6)));
    tail(0);
  } else if (c < 0x10000) {
    out.push_back(static_cast<char>(0xE0 | (c >> 12)));
    tail(6);
    tail(0);
  } else {
    out.push_back(static_cast<char>(0xF0 | (c >> 18)));
    tail(12);
    tail(6);
    tail(0);
  }
}

}  // namespace

void AppendFolded(std::string_view text, std::string& out) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<uint8_t>(text[i]);
    const size_t bytes = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    char32_t c = bytes == 1 ? lead : lead & (0x7F >> bytes);
    for (size_t k = 1; k < bytes && i + k < text.size(); ++k) {
      c = (c << 6) | (static_cast<uint8_t>(text[i + k]) & 0x3F);
    }
    AppendUtf8(Fold(c), out);
    i += bytes;
  }
}

}  // namespace behemoth::gateway
