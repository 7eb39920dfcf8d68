// A vocabulary that fits in the head, for the unit tests of tokenizer_svc: <unk> <s> </s> [X], all
// byte tokens, then the texts in kTexts.
#pragma once

#include <array>
#include <cstdio>
#include <string>
#include <vector>

#include "tokenizer_svc/tokenizer_spec.h"

namespace behemoth::tokenizer {

inline constexpr uint32_t kUnk = 0, kBos = 1, kEos = 2, kX = 3, kByte0 = 4;
inline constexpr uint32_t kMark = 260, kA = 261, kB = 262, kAb = 263, kMarkA = 264, kMarkMark = 265;

inline TokenizerSpec SmallSpec() {
  TokenizerSpec spec;
  spec.tokens = {"<unk>", "<s>", "</s>", "[X]"};
  for (unsigned byte = 0; byte < 256; ++byte) {
    std::array<char, 8> name;
    std::snprintf(name.data(), name.size(), "<0x%02X>", byte);
    spec.tokens.emplace_back(name.data());
  }
  for (const char* text : {"▁", "a", "b", "ab", "▁a", "▁▁"}) spec.tokens.emplace_back(text);
  spec.merges = {{kA, kB, kAb}, {kMark, kA, kMarkA}, {kMark, kMark, kMarkMark}};
  for (const uint32_t id : {kUnk, kBos, kEos, kX}) {
    spec.added.push_back({.id = id, .content = spec.tokens[id], .special = true});
  }
  spec.unk_id = kUnk;
  spec.prefix = Prefix::kFirst;
  spec.spaces_to_marks = true;
  spec.byte_fallback = true;
  spec.fuse_unk = true;
  spec.prefix_ids = {kBos};
  spec.special = {.bos = kBos, .eos = kEos, .unk = kUnk};
  return spec;
}

}  // namespace behemoth::tokenizer
