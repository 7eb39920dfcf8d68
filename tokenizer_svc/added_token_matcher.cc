#include "tokenizer_svc/added_token_matcher.h"

#include <algorithm>

#include "tokenizer_svc/utf8.h"

namespace behemoth::tokenizer {
namespace {

// Where the white space that ends at `at` begins.
size_t StripLeft(std::string_view text, size_t begin, size_t at) {
  while (at > begin) {
    size_t start = at - 1;
    while (start > begin && (static_cast<uint8_t>(text[start]) & 0xC0) == 0x80) --start;
    const CodePoint point = DecodeAt(text, start);
    if (!point.valid || !IsWhiteSpace(point.value)) break;
    at = start;
  }
  return at;
}

size_t StripRight(std::string_view text, size_t at, size_t end) {
  while (at < end) {
    const CodePoint point = DecodeAt(text, at);
    if (!point.valid || !IsWhiteSpace(point.value)) break;
    at += point.bytes;
  }
  return at;
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(const std::vector<AddedToken>& tokens, bool normalized)
    : nodes_(1) {
  std::copy_if(tokens.begin(), tokens.end(), std::back_inserter(tokens_),
               [&](const AddedToken& token) { return token.normalized == normalized; });
  for (const AddedToken& token : tokens_) {
    uint32_t node = 0;
    for (const char c : token.content) {
      const auto [edge, is_new] =
          nodes_[node].next.try_emplace(c, static_cast<uint32_t>(nodes_.size()));
      node = edge->second;
      if (is_new) nodes_.emplace_back();
    }
    nodes_[node].token = &token;
    starts_[static_cast<uint8_t>(token.content.front())] = true;
  }
}

const AddedToken* AddedTokenMatcher::LongestAt(std::string_view text, size_t at, size_t end,
                                               size_t trusted_end) const {
  const AddedToken* longest = nullptr;
  uint32_t node = 0;
  for (size_t i = at; i < end; ++i) {
    const auto edge = nodes_[node].next.find(text[i]);
    if (edge == nodes_[node].next.end()) break;
    node = edge->second;
    const AddedToken* token = nodes_[node].token;
    if (token != nullptr && (!token->special || i < trusted_end)) longest = token;
  }
  return longest;
}

void AddedTokenMatcher::Split(std::string_view text, Span within, const std::vector<Span>& trusted,
                              const Sink& sink) const {
  size_t done = within.begin;
  auto range = trusted.begin();
  for (size_t at = within.begin; at < within.end;) {
    if (!starts_[static_cast<uint8_t>(text[at])]) {
      ++at;
      continue;
    }
    while (range != trusted.end() && range->end <= at) ++range;
    const bool is_trusted = range != trusted.end() && range->begin <= at;
    const AddedToken* token = LongestAt(text, at, within.end, is_trusted ? range->end : 0);
    if (token == nullptr) {
      ++at;
      continue;
    }
    Span span{at, at + token->content.size()};
    at = span.end;
    if (token->strip_left) span.begin = StripLeft(text, std::min(done, span.begin), span.begin);
    if (token->strip_right) span.end = StripRight(text, span.end, within.end);
    if (done < span.begin) sink(std::nullopt, {done, span.begin});
    sink(token->id, span);
    done = span.end;
  }
  if (done < within.end) sink(std::nullopt, {done, within.end});
}

}  // namespace behemoth::tokenizer
