#include "worker/structure/regex_text.h"

#include <absl/strings/str_cat.h>

#include <cctype>

namespace behemoth::worker {
namespace {

constexpr absl::string_view kUnsafe = R"(\x00-\x1f\x22\x5c\x7f)";

absl::Status Bad(absl::string_view what) { return absl::InvalidArgumentError(what); }

bool IsUnsafe(char c) {
  return static_cast<unsigned char>(c) < 0x20 || c == '"' || c == '\\' || c == 0x7f;
}

// Walks a regex piece by piece; the pieces are copied or changed.
class Rewriter {
 public:
  Rewriter(std::string_view regex, bool json) : in_(regex), json_(json) {}

  absl::StatusOr<std::string> Run() {
    if (in_.starts_with('^')) in_.remove_prefix(1);
    while (at_ < in_.size()) {
      absl::Status piece = Piece();
      if (!piece.ok()) return piece;
    }
    return std::move(out_);
  }

 private:
  absl::Status Piece() {
    const char c = in_[at_];
    if (c == '\\') return Escape();
    if (c == '[') return Class();
    if (c == '^') return Bad("an anchor inside the pattern is not supported");
    if (c == '$') {
      if (at_ + 1 != in_.size()) return Bad("an anchor inside the pattern is not supported");
      ++at_;
      return absl::OkStatus();
    }
    if (c == '(' && in_.substr(at_).starts_with("(?")) {
      if (!in_.substr(at_).starts_with("(?:")) {
        return Bad("only plain and non-capturing groups are supported");
      }
      at_ += 3;
      out_ += "(";
      return absl::OkStatus();
    }
    if (c == '*' || c == '+' || c == '?' || c == '}') {
      // Greed does not matter to what matches as a whole.
      out_ += c;
      ++at_;
      if (at_ < in_.size() && in_[at_] == '?') ++at_;
      if (at_ < in_.size() && in_[at_] == '+')
        return Bad("possessive repetitions are not supported");
      return absl::OkStatus();
    }
    if (c == '.') {
      out_ += json_ ? absl::StrCat("[^", kUnsafe, "]") : "[^\\n]";
      ++at_;
      return absl::OkStatus();
    }
    if (json_ && IsUnsafe(c)) return Unsafe();
    out_ += c;
    ++at_;
    return absl::OkStatus();
  }

  static absl::Status Unsafe() {
    return Bad("a quote, a backslash or a control character in a string is not supported");
  }

  static absl::Status BeyondAscii() {
    return Bad("a class of characters beyond ASCII is not supported");
  }

  // Outside of a class.
  absl::Status Escape() {
    if (at_ + 1 >= in_.size()) return Bad("ends with a backslash");
    const char kind = in_[at_ + 1];
    at_ += 2;
    if (kind == 'D' || kind == 'W' || kind == 'S') {
      // Beyond ASCII not everybody agrees; neither quote nor backslash, so that JSON takes it too.
      out_ += kind == 'D'   ? R"([\x20\x21\x23-\x2f\x3a-\x5b\x5d-\x7e])"
              : kind == 'W' ? R"([\x20\x21\x23-\x2f\x3a-\x40\x5b\x5d\x5e\x60\x7b-\x7e])"
                            : R"([\x21\x23-\x5b\x5d-\x7e])";
      return absl::OkStatus();
    }
    if (kind == 's') {
      out_ += json_ ? "[ ]" : R"([ \t\n\r\f\v])";
      return absl::OkStatus();
    }
    if (kind == 'd' || kind == 'w') {
      out_ += kind == 'd' ? "[0-9]" : "[a-zA-Z0-9_]";
      return absl::OkStatus();
    }
    return Character(kind);
  }

  // Escapes of one character; `kind` is behind the backslash, at_ behind that.
  absl::Status Character(char kind) {
    if (std::isalnum(static_cast<unsigned char>(kind))) {
      const size_t digits = kind == 'x' ? 2 : kind == 'u' ? 4 : 0;
      if (digits == 0) {
        if (std::string_view("nrtfv").find(kind) == std::string_view::npos) {
          return Bad(absl::StrCat("the escape \\", std::string(1, kind), " is not supported"));
        }
        if (json_) return Unsafe();
        out_ += {'\\', kind};
        return absl::OkStatus();
      }
      uint32_t code = 0;
      for (size_t i = 0; i < digits; ++i, ++at_) {
        if (at_ >= in_.size() || !std::isxdigit(static_cast<unsigned char>(in_[at_]))) {
          return Bad("an escape lacks digits");
        }
        const char digit = static_cast<char>(std::tolower(static_cast<unsigned char>(in_[at_])));
        code = code * 16 + static_cast<uint32_t>(digit <= '9' ? digit - '0' : digit - 'a' + 10);
      }
      if (json_ && code < 0x80 && IsUnsafe(static_cast<char>(code))) return Unsafe();
      out_ += absl::StrCat("\\u", absl::Hex(code, absl::kZeroPad4));
      return absl::OkStatus();
    }
    if (json_ && IsUnsafe(kind)) return Unsafe();
    out_ += {'\\', kind};
    return absl::OkStatus();
  }

  absl::Status Class() {
    const size_t begin = at_++;
    const bool negated = at_ < in_.size() && in_[at_] == '^';
    if (negated) ++at_;
    out_ += negated ? "[^" : "[";
    if (at_ < in_.size() && in_[at_] == ']') return Bad("an empty class is not supported");
    while (at_ < in_.size() && in_[at_] != ']') {
      absl::Status member = Member(negated);
      if (!member.ok()) return member;
    }
    if (at_ >= in_.size()) return Bad(absl::StrCat("'[' at ", begin, " is not closed"));
    if (json_ && negated) absl::StrAppend(&out_, kUnsafe);
    out_ += "]";
    ++at_;
    return absl::OkStatus();
  }

  absl::Status Member(bool negated) {
    const char c = in_[at_];
    if (static_cast<unsigned char>(c) >= 0x80) return BeyondAscii();
    if (c == '[') {
      out_ += "\\[";
      ++at_;
      return absl::OkStatus();
    }
    // What a range spans is not looked into: it must be of plain characters or stand in no JSON.
    if (json_ && !negated && c != '\\' && at_ + 2 < in_.size() && in_[at_ + 1] == '-' &&
        in_[at_ + 2] != ']') {
      const bool plain = std::isalnum(static_cast<unsigned char>(c)) &&
                         std::isalnum(static_cast<unsigned char>(in_[at_ + 2])) &&
                         !(std::isupper(static_cast<unsigned char>(c)) &&
                           std::islower(static_cast<unsigned char>(in_[at_ + 2])));
      if (!plain) {
        return Bad("a range in a string's class must be of letters or digits");
      }
    }
    if (c != '\\') {
      if (json_ && IsUnsafe(c)) {
        if (!negated) return Unsafe();
      } else {
        out_ += c;
      }
      ++at_;
      return absl::OkStatus();
    }
    if (at_ + 1 >= in_.size()) return Bad("ends with a backslash");
    const char kind = in_[at_ + 1];
    at_ += 2;
    if (kind == 'd' || kind == 'w' || kind == 's') {
      out_ += kind == 'd' ? "0-9" : kind == 'w' ? "a-zA-Z0-9_" : json_ ? " " : R"( \t\n\r\f\v)";
      return absl::OkStatus();
    }
    if (json_ && negated && std::string_view("nrtfv\"\\").find(kind) != std::string_view::npos) {
      return absl::OkStatus();  // excluded anyhow
    }
    if (json_ && !negated && at_ < in_.size() && in_[at_] == '-') {
      return Bad("a range in a string's class must be of letters or digits");
    }
    const size_t before = out_.size();
    if (absl::Status bad = Character(kind); !bad.ok()) return bad;
    // Written as \uXXXX.
    const bool ascii = kind != 'u' && kind != 'x'
                           ? true
                           : out_.compare(before, 4, "\\u00") == 0 && out_[before + 4] < '8';
    return ascii ? absl::OkStatus() : BeyondAscii();
  }

  std::string_view in_;
  const bool json_;
  size_t at_ = 0;
  std::string out_;
};

// Of an escape in a class, "\x80" on; `text` begins behind the backslash.
bool EscapesBeyondAscii(std::string_view text) {
  if (text.starts_with('x')) return text.size() > 1 && text[1] >= '8';
  if (text.starts_with('u')) return !text.starts_with("u00") || (text.size() > 3 && text[3] >= '8');
  return text.starts_with('U');
}

}  // namespace

absl::Status CheckGrammarClasses(std::string_view grammar) {
  char within = 0;
  for (size_t i = 0; i < grammar.size(); ++i) {
    const char c = grammar[i];
    if (within == ']' && (static_cast<unsigned char>(c) >= 0x80 ||
                          (c == '\\' && EscapesBeyondAscii(grammar.substr(i + 1))))) {
      return Bad("a class of characters beyond ASCII is not supported");
    }
    if (c == '\\') {
      ++i;
    } else if (within != 0) {
      if (c == within) within = 0;
    } else if (c == '[' || c == '"' || c == '#') {
      within = c == '[' ? ']' : c == '"' ? '"' : '\n';
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> PlainRegex(std::string_view regex) {
  return Rewriter(regex, false).Run();
}

absl::StatusOr<std::string> InsideJsonString(std::string_view pattern) {
  return Rewriter(pattern, true).Run();
}

}  // namespace behemoth::worker
