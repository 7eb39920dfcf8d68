#include "tests/property/gateway/text_oracle.h"

#include <cstdint>
#include <vector>

namespace behemoth::gateway::oracle {
namespace {

std::string Encode(uint32_t code) {
  const auto tail = [&](int shift) { return static_cast<char>(0x80 | ((code >> shift) & 0x3F)); };
  if (code < 0x80) return {static_cast<char>(code)};
  if (code < 0x800) return {static_cast<char>(0xC0 | code >> 6), tail(0)};
  if (code < 0x10000) return {static_cast<char>(0xE0 | code >> 12), tail(6), tail(0)};
  return {static_cast<char>(0xF0 | code >> 18), tail(12), tail(6), tail(0)};
}

// Decodes `bytes` as if they were one character: it is one if it encodes to the same bytes.
bool IsCharacter(std::string_view bytes) {
  uint32_t code = static_cast<uint8_t>(bytes[0]);
  constexpr uint32_t kLeadBits[] = {0x7F, 0x1F, 0x0F, 0x07};
  code &= kLeadBits[bytes.size() - 1];
  for (const char c : bytes.substr(1)) code = code << 6 | (c & 0x3F);
  const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
  return code <= 0x10FFFF && !surrogate && Encode(code) == bytes;
}

bool IsSpace(char c) { return std::string_view(" \n\r\t").find(c) != std::string_view::npos; }

size_t SkipSpace(std::string_view text, size_t at) {
  while (at < text.size() && IsSpace(text[at])) ++at;
  return at;
}

}  // namespace

std::string ValidUtf8(std::string_view bytes) {
  std::string out;
  for (size_t at = 0; at < bytes.size();) {
    size_t length = 1;
    while (length <= 4 && at + length <= bytes.size() && !IsCharacter(bytes.substr(at, length))) {
      ++length;
    }
    if (length <= 4 && at + length <= bytes.size()) {
      out += bytes.substr(at, length);
      at += length;
    } else {
      out += "\xEF\xBF\xBD";
      ++at;
    }
  }
  return out;
}

bool IsValidUtf8(std::string_view bytes) { return ValidUtf8(bytes) == bytes; }

std::optional<FoundStop> FindStop(std::string_view text, std::span<const std::string> stops) {
  for (size_t at = 0; at < text.size(); ++at) {
    std::optional<FoundStop> best;
    for (size_t i = 0; i < stops.size(); ++i) {
      const bool here = text.substr(at, stops[i].size()) == stops[i];
      if (here && (!best || stops[i].size() < stops[best->index].size())) best = {at, i};
    }
    if (best) return best;
  }
  return std::nullopt;
}

Split SplitThinking(std::string_view prefill, std::string_view text, bool keep_tags) {
  const std::string turn = std::string(prefill) + std::string(text);
  // [0, opened) nothing | [opened, closed) reasoning | [closed, answer) nothing | [answer, end)
  size_t opened = 0, closed = 0, answer = 0;
  const size_t tag = SkipSpace(turn, 0);
  if (std::string_view(turn).substr(tag, 7) == "<think>") {
    const size_t end = turn.find("</think>", tag + 7);
    closed = answer = turn.size();
    if (end != std::string::npos) closed = answer = end + 8;
    if (!keep_tags) {
      opened = SkipSpace(turn, tag + 7);
      if (end != std::string::npos) {
        closed = end;
        while (closed > opened && IsSpace(turn[closed - 1])) --closed;
        answer = SkipSpace(turn, end + 8);
      }
    }
  }
  Split split;
  for (size_t i = prefill.size(); i < turn.size(); ++i) {
    if (i >= opened && i < closed) split.reasoning.push_back(turn[i]);
    if (i >= answer) split.answer.push_back(turn[i]);
  }
  return split;
}

}  // namespace behemoth::gateway::oracle
