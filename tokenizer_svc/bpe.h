// Byte-pair merging over symbols: the neighbours of lowest rank are joined first, ties leftmost.
//
// Immutable after construction, thread-safe; a Scratch belongs to one call at a time.
// Time n log n in the symbols of one run; memory 40 bytes per symbol.
// Source: Sennrich et al. 2016 (arXiv 1508.07909); order and staleness rule as `tokenizers` 0.23.
#pragma once

#include <absl/container/flat_hash_map.h>
#include <absl/container/flat_hash_set.h>

#include <cstdint>
#include <span>
#include <vector>

#include "tokenizer_svc/tokenizer_spec.h"

namespace behemoth::tokenizer {

class Bpe {
 public:
  class Scratch {
    friend class Bpe;
    struct Symbol {
      uint32_t id;
      int32_t previous;
      int32_t next;
      bool alive;
    };
    struct Candidate {
      uint32_t rank;
      int32_t position;
      uint32_t joined;
    };
    std::vector<Symbol> symbols_;
    std::vector<Candidate> heap_;
  };

  explicit Bpe(const TokenizerSpec& spec);

  // Appends the merged ids of `symbols` to `out`.
  void Encode(std::span<const uint32_t> symbols, Scratch& scratch,
              std::vector<uint32_t>& out) const;

 private:
  struct Join {
    uint32_t rank;
    uint32_t joined;
  };

  // No merge ever reaches over this border, so both sides can be merged alone.
  bool IsBorder(uint32_t left, uint32_t right) const;
  void MergeRun(std::span<const uint32_t> run, Scratch& scratch, std::vector<uint32_t>& out) const;
  void Push(Scratch& scratch, int32_t position) const;

  absl::flat_hash_map<uint64_t, Join> joins_;
  absl::flat_hash_set<uint64_t> bridges_;  // symbol pairs that some merge reaches over
};

}  // namespace behemoth::tokenizer
