#include "gateway/session/phrases.h"

#include <absl/strings/ascii.h>
#include <absl/strings/str_cat.h>

#include <algorithm>
#include <utility>

#include "gateway/api/api_error.h"

namespace behemoth::gateway {
namespace {

constexpr std::string_view kEndThinking = "\n</think>\n\n";
// No token of a vocabulary of ours goes on behind a line's end: what follows it stands alone.
constexpr std::string_view kAnchor = "\n";
constexpr size_t kMaxTailIds = 16;
constexpr size_t kMaxWordIds = 64;

struct Phrase {
  enum class Kind { kAnchor, kEndThinking, kBadWord, kBreakerTail };
  Kind kind;
  std::string text;
  size_t index = 0, head_bytes = 0;  // of a breaker
};

bool BeginsCharacter(char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; }

std::string Anchored(std::string_view text, std::string_view before = "") {
  std::string line(kAnchor);
  line.append(before).append(text);
  return line;
}

// In the order in which they are encoded.
std::vector<Phrase> PhrasesOf(const SamplingOptions& sampling, bool thinking_budget) {
  std::vector<Phrase> phrases;
  if (thinking_budget) phrases.push_back({Phrase::Kind::kEndThinking, std::string(kEndThinking)});
  const size_t unanchored = phrases.size();
  phrases.push_back({Phrase::Kind::kAnchor, std::string(kAnchor)});
  for (const std::string& word : sampling.bad_words) {
    const std::string bare(absl::StripLeadingAsciiWhitespace(word));
    phrases.push_back({Phrase::Kind::kBadWord, Anchored(bare)});
    phrases.push_back({Phrase::Kind::kBadWord, Anchored(bare, " ")});
  }
  const size_t breakers = sampling.dry ? sampling.dry->breakers.size() : 0;
  for (size_t i = 0; i < breakers; ++i) {
    const std::string& breaker = sampling.dry->breakers[i];
    for (size_t cut = 1; cut < breaker.size(); ++cut) {
      if (!BeginsCharacter(breaker[cut])) continue;
      phrases.push_back(
          {Phrase::Kind::kBreakerTail, Anchored(std::string_view(breaker).substr(cut)), i, cut});
    }
  }
  if (phrases.size() == unanchored + 1) phrases.pop_back();  // nothing to anchor
  return phrases;
}

}  // namespace

std::vector<EncodeInput> PhraseInputs(const SamplingOptions& sampling, bool thinking_budget) {
  std::vector<EncodeInput> inputs;
  for (Phrase& phrase : PhrasesOf(sampling, thinking_budget)) {
    inputs.emplace_back().segments.push_back({.text = std::move(phrase.text)});
  }
  return inputs;
}

absl::StatusOr<PhraseIds> PhraseIdsOf(const SamplingOptions& sampling, bool thinking_budget,
                                      IdLists encoded) {
  const std::vector<Phrase> phrases = PhrasesOf(sampling, thinking_budget);
  if (phrases.size() != encoded.size()) {
    return absl::InternalError("the tokenizer left phrases out");
  }
  PhraseIds out;
  std::vector<uint32_t> anchor;
  for (size_t i = 0; i < phrases.size(); ++i) {
    std::vector<uint32_t>& ids = encoded[i];
    if (phrases[i].kind == Phrase::Kind::kAnchor) {
      anchor = std::move(ids);
      continue;
    }
    if (phrases[i].kind == Phrase::Kind::kEndThinking) {
      out.end_thinking = std::move(ids);
      continue;
    }
    if (ids.size() <= anchor.size() || !std::equal(anchor.begin(), anchor.end(), ids.begin())) {
      return absl::InternalError("the tokenizer joins a line's end with what follows it");
    }
    ids.erase(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(anchor.size()));
    if (phrases[i].kind == Phrase::Kind::kBreakerTail) {
      ids.resize(std::min(ids.size(), kMaxTailIds));
      out.breaker_tails.push_back({phrases[i].index, phrases[i].head_bytes, std::move(ids)});
      continue;
    }
    if (ids.size() > kMaxWordIds) {
      return InvalidField("bad_words", absl::StrCat("a word has at most ", kMaxWordIds, " tokens"));
    }
    out.bad_words.push_back(std::move(ids));
  }
  return out;
}

DrySpec DryOf(const DryOptions& dry, const PhraseIds& phrases, const TokenTable& table) {
  DrySpec spec{.multiplier = static_cast<float>(dry.multiplier),
               .allowed_length = dry.allowed_length,
               .last_n = dry.last_n};
  if (dry.base) spec.base = static_cast<float>(*dry.base);
  for (const std::string& breaker : dry.breakers) {
    const std::vector<uint32_t> ids = table.Containing(breaker);
    spec.breaker_ids.insert(spec.breaker_ids.end(), ids.begin(), ids.end());
  }
  std::sort(spec.breaker_ids.begin(), spec.breaker_ids.end());
  spec.breaker_ids.erase(std::unique(spec.breaker_ids.begin(), spec.breaker_ids.end()),
                         spec.breaker_ids.end());
  for (const BreakerTail& cut : phrases.breaker_tails) {
    const std::string_view head =
        std::string_view(dry.breakers[cut.index]).substr(0, cut.head_bytes);
    std::vector<uint32_t> heads = table.EndingWith(head);
    std::erase_if(heads, [&](uint32_t id) {
      return std::binary_search(spec.breaker_ids.begin(), spec.breaker_ids.end(), id);
    });
    if (!heads.empty()) spec.spanning_breakers.push_back({std::move(heads), cut.tail});
  }
  return spec;
}

}  // namespace behemoth::gateway
