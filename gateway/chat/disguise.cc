#include "gateway/chat/disguise.h"

#include <algorithm>

namespace behemoth::gateway {
namespace {

constexpr char32_t kFirst = 0xD800;  // 2,048 surrogates: no set of control tokens has more letters
constexpr char32_t kLast = 0xDFFF;

// What strip(), split() and tojson look at. Others are told apart by the comparison in Reveal().
bool MustStay(char32_t c) { return c <= ' ' || c == '"' || c == '\\' || c == 0xA0 || c == 0x3000; }

}  // namespace

std::u32string FromUtf8(std::string_view text) {
  std::u32string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const size_t length = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    char32_t c = length == 1 ? lead : lead & (0x7F >> length);
    for (size_t k = 1; k < length && i + k < text.size(); ++k) {
      c = c << 6 | (static_cast<unsigned char>(text[i + k]) & 0x3F);
    }
    out += c;
    i += length;
  }
  return out;
}

void AppendUtf8(char32_t c, std::string& out) {
  const auto tail = [c](int shift) { return static_cast<char>(0x80 | (c >> shift & 0x3F)); };
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | c >> 6);
    out += tail(0);
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | c >> 12);
    out += tail(6);
    out += tail(0);
  } else {
    out += static_cast<char>(0xF0 | c >> 18);
    out += tail(12);
    out += tail(6);
    out += tail(0);
  }
}

Disguise::Disguise(std::span<const std::pair<std::string, uint32_t>> control_tokens,
                   std::span<const std::string> constants) {
  std::vector<std::u32string> tokens;
  for (const auto& [string, id] : control_tokens) {
    const std::u32string token = FromUtf8(string);
    bool can_hide = false;
    for (const char32_t c : token) {
      if (MustStay(c)) continue;
      if (!hidden_.contains(c) && kFirst + shown_.size() <= kLast) {
        hidden_[c] = static_cast<char32_t>(kFirst + shown_.size());
        shown_ += c;
      }
      can_hide |= hidden_.contains(c);
    }
    if (!can_hide) continue;
    control_tokens_.Add(token, id);
    tokens.push_back(token);
  }
  for (const std::string& constant : constants) {
    const std::u32string text = FromUtf8(constant);
    // Neither a control token nor a piece of one may pass undisguised.
    const bool part = std::any_of(tokens.begin(), tokens.end(), [&](const std::u32string& token) {
      return token.find(text) != token.npos;
    });
    if (!part && !control_tokens_.OccursIn(text)) constants_.Add(text, 0);
  }
}

char32_t Disguise::Hidden(char32_t c) const {
  const auto found = hidden_.find(c);
  return found == hidden_.end() ? c : found->second;
}

bool Disguise::HasControlToken(std::string_view user_text) const {
  return control_tokens_.OccursIn(FromUtf8(user_text));
}

std::u32string Disguise::Hide(std::string_view user_text, Depth depth) const {
  const std::u32string plain = FromUtf8(user_text);
  std::u32string out = plain;
  if (depth == Depth::kSpelling) {
    for (size_t i = 0; i < plain.size();) {
      const size_t kept = constants_.Longest(plain, i).length;
      if (kept == 0) out[i] = Hidden(plain[i]);
      i += std::max<size_t>(kept, 1);
    }
  }
  // At every place, also inside a longer one: hiding that one's head must not free another.
  for (size_t i = 0; i < plain.size(); ++i) {
    const size_t length = control_tokens_.Longest(plain, i).length;
    for (size_t k = i; k < i + length; ++k) out[k] = Hidden(plain[k]);
  }
  return out;
}

std::optional<std::vector<PromptText::Segment>> Disguise::Reveal(std::u32string_view printed,
                                                                 std::string_view truth) const {
  std::vector<PromptText::Segment> segments;
  std::string text;
  std::string_view rest = truth;
  const auto take = [&rest](std::string_view piece) {
    if (rest.substr(0, piece.size()) != piece) return false;
    rest.remove_prefix(piece.size());
    return true;
  };
  const auto end_text = [&] {
    if (text.empty()) return true;
    const bool same = take(text);
    segments.emplace_back(std::move(text));
    text.clear();
    return same;
  };
  for (size_t i = 0; i < printed.size();) {
    if (const auto token = control_tokens_.Longest(printed, i); token.length > 0) {
      if (!end_text()) return std::nullopt;
      std::string spelling;
      for (const char32_t c : printed.substr(i, token.length)) AppendUtf8(c, spelling);
      if (!take(spelling)) return std::nullopt;
      segments.emplace_back(token.value);
      i += token.length;
      continue;
    }
    const char32_t c = printed[i++];
    const bool disguised = c >= kFirst && c <= kLast;
    if (disguised && c - kFirst >= shown_.size()) return std::nullopt;
    AppendUtf8(disguised ? shown_[c - kFirst] : c, text);
  }
  if (!end_text() || !rest.empty()) return std::nullopt;
  return segments;
}

}  // namespace behemoth::gateway
