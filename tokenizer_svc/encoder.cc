#include "tokenizer_svc/encoder.h"

#include <algorithm>

#include "tokenizer_svc/utf8.h"

namespace behemoth::tokenizer {

namespace {

constexpr uint32_t kMarkCodePoint = 0x2581;

}  // namespace

Encoder::Encoder(const TokenizerSpec& spec)
    : prefix_(spec.prefix),
      spaces_to_marks_(spec.spaces_to_marks),
      split_at_marks_(spec.split_at_marks),
      byte_fallback_(spec.byte_fallback),
      fuse_unk_(spec.fuse_unk),
      ignore_merges_(spec.ignore_merges),
      unk_id_(spec.unk_id),
      prefix_ids_(spec.prefix_ids),
      suffix_ids_(spec.suffix_ids),
      byte_ids_(256, 0),
      first_pass_(spec.added, /*normalized=*/false),
      second_pass_(spec.added, /*normalized=*/true),
      bpe_(spec) {
  for (uint32_t id = 0; id < spec.tokens.size(); ++id) {
    const std::string& token = spec.tokens[id];
    if (token.empty()) continue;
    if (const auto byte = ByteOfToken(token)) byte_ids_[*byte] = id;
    const CodePoint point = DecodeAt(token, 0);
    if (point.valid && point.bytes == token.size()) symbols_[point.value] = id;
    if (ignore_merges_) whole_ids_[token] = id;
  }
}

std::vector<uint32_t> Encoder::Encode(std::span<const Segment> segments,
                                      bool add_special_tokens) const {
  Call call;
  std::string joined;
  for (size_t i = 0; i < segments.size();) {
    if (segments[i].kind == Segment::Kind::kControl) {
      call.ids.push_back(segments[i++].control_id);
      call.at_start = false;
      continue;
    }
    size_t end = i;
    size_t bytes = 0;
    call.trusted.clear();
    for (; end < segments.size() && segments[end].kind != Segment::Kind::kControl; ++end) {
      const Span span{bytes, bytes + segments[end].text.size()};
      bytes = span.end;
      if (segments[end].kind != Segment::Kind::kMarked) continue;
      // A control string may lie across the border of two marked segments: they are one string.
      if (!call.trusted.empty() && call.trusted.back().end == span.begin) {
        call.trusted.back().end = span.end;
      } else {
        call.trusted.push_back(span);
      }
    }
    if (end - i == 1) {
      call.text = segments[i].text;
    } else {
      joined.clear();
      joined.reserve(bytes);
      for (; i < end; ++i) joined += segments[i].text;
      call.text = joined;
    }
    EncodeRun(call);
    if (bytes > 0) call.at_start = false;
    i = end;
  }
  if (!add_special_tokens) return std::move(call.ids);
  const bool has_prefix = call.ids.size() >= prefix_ids_.size() &&
                          std::equal(prefix_ids_.begin(), prefix_ids_.end(), call.ids.begin());
  if (!has_prefix) call.ids.insert(call.ids.begin(), prefix_ids_.begin(), prefix_ids_.end());
  call.ids.insert(call.ids.end(), suffix_ids_.begin(), suffix_ids_.end());
  return std::move(call.ids);
}

void Encoder::EncodeRun(Call& call) const {
  const auto second = [&](std::optional<uint32_t> id, Span span) {
    if (id) {
      call.ids.push_back(*id);
    } else {
      EncodePiece(call, span);
    }
  };
  first_pass_.Split(call.text, {0, call.text.size()}, call.trusted,
                    [&](std::optional<uint32_t> id, Span span) {
                      if (id) {
                        call.ids.push_back(*id);
                      } else {
                        second_pass_.Split(call.text, span, call.trusted, second);
                      }
                    });
}

bool Encoder::StartsWithMark(std::string_view text) const {
  return text.starts_with(kSpaceMark) || (spaces_to_marks_ && text.starts_with(' '));
}

void Encoder::EncodePiece(Call& call, Span span) const {
  const std::string_view piece = call.text.substr(span.begin, span.end - span.begin);
  const bool is_first = call.at_start && span.begin == 0;
  const bool wanted = prefix_ == Prefix::kAlways || (prefix_ == Prefix::kFirst && is_first);
  bool with_mark = prefix_ == Prefix::kForced || (wanted && !StartsWithMark(piece));
  if (!split_at_marks_) {
    EncodeWord(call, piece, with_mark);
    return;
  }
  // Each mark starts a word; a forced mark before another one is a word by itself.
  if (with_mark && StartsWithMark(piece)) {
    EncodeWord(call, "", true);
    with_mark = false;
  }
  size_t begin = 0;
  for (size_t at = 0; at < piece.size(); at += DecodeAt(piece, at).bytes) {
    if (at == begin || !StartsWithMark(piece.substr(at))) continue;
    EncodeWord(call, piece.substr(begin, at - begin), with_mark);
    with_mark = false;
    begin = at;
  }
  EncodeWord(call, piece.substr(begin), with_mark);
}

std::optional<uint32_t> Encoder::WholeToken(std::string_view word, bool with_mark) const {
  std::string whole(with_mark ? kSpaceMark : "");
  for (const char c : word) {
    if (c == ' ' && spaces_to_marks_) {
      whole += kSpaceMark;
    } else {
      whole += c;
    }
  }
  const auto found = whole_ids_.find(whole);
  return found == whole_ids_.end() ? std::nullopt : std::optional(found->second);
}

void Encoder::EncodeWord(Call& call, std::string_view word, bool with_mark) const {
  if (ignore_merges_) {
    if (const auto id = WholeToken(word, with_mark)) {
      call.ids.push_back(*id);
      return;
    }
  }
  call.symbols.clear();
  if (with_mark) AppendSymbols(call, kSpaceMark);
  AppendSymbols(call, word);
  bpe_.Encode(call.symbols, call.scratch, call.ids);
}

std::optional<uint32_t> Encoder::SymbolOf(uint32_t code_point) const {
  if (code_point == ' ' && spaces_to_marks_) code_point = kMarkCodePoint;
  const auto found = symbols_.find(code_point);
  return found == symbols_.end() ? std::nullopt : std::optional(found->second);
}

void Encoder::AppendSymbols(Call& call, std::string_view word) const {
  bool after_unknown = false;
  for (size_t at = 0; at < word.size();) {
    const CodePoint point = DecodeAt(word, at);
    const auto symbol = point.valid ? SymbolOf(point.value) : std::nullopt;
    const bool unknown = !symbol && !byte_fallback_;
    if (symbol) {
      call.symbols.push_back(*symbol);
    } else if (byte_fallback_) {
      // A space without a mark token falls back to the mark's bytes, which is what was looked up.
      const bool is_mark = spaces_to_marks_ && word[at] == ' ';
      for (const char byte : is_mark ? kSpaceMark : word.substr(at, point.bytes)) {
        call.symbols.push_back(byte_ids_[static_cast<uint8_t>(byte)]);
      }
    } else if (unk_id_ && !(fuse_unk_ && after_unknown)) {
      call.symbols.push_back(*unk_id_);
    }
    after_unknown = unknown;
    at += point.bytes;
  }
}

}  // namespace behemoth::tokenizer
